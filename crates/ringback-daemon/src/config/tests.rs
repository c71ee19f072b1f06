use super::*;

fn env() -> Env {
    Env::of(
        [("HOME", "/home/dev"), ("TOKEN", "sixteen-characters")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    )
}

fn parse(text: &str) -> Config {
    read(text, None, &env()).expect("the text is a good configuration")
}

fn invalid(text: &str) -> String {
    read(text, None, &env()).expect_err("the text is a bad configuration").to_string()
}

#[test]
fn no_file_is_needed() {
    let c = parse("");
    assert_eq!(c.listen, Listen::Default);
    assert_eq!(c.claude_dirs, [PathBuf::from("/home/dev/.claude")]);
    assert_eq!(c.codex_homes, [PathBuf::from("/home/dev/.codex")]);
    assert!(c.delivery.durable && c.endpoints.is_empty() && c.warnings.is_empty());
}

#[test]
fn toml_and_json_have_the_same_keys() {
    let toml = parse(
        "window_minutes = 10\n[[webhooks]]\nname = \"a\"\nurl = \"http://localhost:1/x\"\nevents = [\"Waiting\"]\n",
    );
    let json = parse(
        r#"{"window_minutes":10,"webhooks":[{"name":"a","url":"http://localhost:1/x","events":["Waiting"]}]}"#,
    );
    for c in [toml, json] {
        assert_eq!(c.window, Duration::from_secs(600));
        assert_eq!(c.endpoints.len(), 1, "{:?}", c.warnings);
        assert_eq!(c.endpoints[0].events.iter().map(|a| a.as_str()).collect::<Vec<_>>(), ["waiting"]);
        assert_eq!(c.endpoints[0].backoff, [1, 5, 30].map(Duration::from_secs));
    }
}

#[test]
fn the_passphrase_comes_from_the_environment_before_the_file_and_is_no_short_one() {
    let with = |text: &str, variable: &str| {
        let mut env = env();
        env.add_missing([(PASSPHRASE_VARIABLE.to_owned(), variable.to_owned())]);
        read(text, None, &env).map(|c| (c.passphrase.map(|p| p.reveal().to_owned()), c.salt))
    };
    let file = "api_passphrase = \"twelve chars\"\napi_salt = \"salty\"\n";
    let (of_file, salt) = with(file, "").expect("twelve characters are enough");
    assert_eq!((of_file.as_deref(), salt.as_deref()), (Some("twelve chars"), Some("salty")));
    let (of_variable, _) = with(file, "from the environment").expect("it is long");
    assert_eq!(of_variable.as_deref(), Some("from the environment"));
    let empty = "api_passphrase = \"\"\napi_salt = \"\"\n";
    assert_eq!(with(empty, "").expect("empty counts as none"), (None, None));
    for (text, variable, place) in [
        ("api_passphrase = \"eleven char\"", "", "api_passphrase"),
        (file, "eleven char", "RINGBACK_API_PASSPHRASE"),
    ] {
        let refused = with(text, variable).expect_err("eleven characters").to_string();
        assert_eq!(refused, format!("the passphrase in {place} is shorter than 12 characters"));
    }
}

#[test]
fn an_unknown_key_is_one_warning_with_the_nearest_known_key() {
    let c = parse("[delivery]\nretension = \"7d\"\n");
    assert_eq!(c.warnings, ["unknown key delivery.retension (line 2); did you mean `retention`?"]);
}

#[test]
fn a_wrong_type_names_the_key_its_place_and_what_is_expected() {
    let message = invalid("# hello\n[delivery]\nretention = 7\n");
    assert!(message.contains("delivery.retention (line 3): expected a duration"), "{message}");
    assert!(message.contains("found a whole number"), "{message}");
}

#[test]
fn a_bad_entry_is_skipped_with_one_warning_and_the_others_work() {
    let c = parse(
        r#"{"webhooks":[
            {"name":"good","url":"https://example.com/x"},
            {"name":"word","url":"https://example.com/x","events":["sleeping"]},
            {"name":"good","url":"https://example.com/y"},
            {"url":"https://example.com/y"},
            {"name":"scheme","url":"ftp://user:pw@example.com/y"},
            {"name":"later","url":"https://example.com/y","digest":"30m"},
            {"name":"pager","url":"https://events.pagerduty.com/v2/enqueue/xyz"},
            {"name":"env","url":"https://example.com/y","secret_env":"NOT_SET"},
            {"name":"two","url":"https://example.com/y","secret_env":"TOKEN","secret":"x"},
            "nonsense",
            {"name":"last","url":"https://example.com/z","secret_env":"TOKEN"}
        ]}"#,
    );
    assert_eq!(c.endpoints.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["good", "last"]);
    let skipped: Vec<_> = c.skipped.names.iter().map(|name| name.as_str()).collect();
    assert_eq!(skipped, ["env", "good", "later", "pager", "scheme", "two", "word"]);
    assert!(c.skipped.is_nameless, "one has no name, another is no table");
    assert_eq!(c.warnings.len(), 9, "{:#?}", c.warnings);
    assert!(
        c.warnings[0].contains("\"word\"") && c.warnings[0].contains("valid: idle waiting"),
        "{}",
        c.warnings[0]
    );
    assert!(c.warnings.iter().all(|w| !w.contains("pw@") && !w.contains("xyz")), "{:#?}", c.warnings);
}

#[test]
fn a_queue_may_be_that_of_a_skipped_entry_by_its_name_or_where_one_has_none() {
    let may_own = |entries: &str, queue: &str| {
        let skipped = parse(&format!(r#"{{"webhooks":[{entries}]}}"#)).skipped;
        skipped.may_own(&ringback_model::EndpointName::new(queue))
    };
    let bad = r#"{"name":"a","url":"http://h/","backoff":["5"]}"#;
    assert!(may_own(bad, "a") && !may_own(bad, "b"));
    assert!(!may_own(r#"{"name":"a","url":"http://h/"}"#, "a"));
    for nameless in ["{}", "7", r#"{"name":7,"url":"http://h/"}"#, r#"{"name":" ","url":"http://h/"}"#] {
        assert!(may_own(nameless, "a"), "{nameless}");
    }
}

#[test]
fn a_url_has_its_host_where_a_host_belongs() {
    let taken = |url: &str| {
        let c = parse(&serde_json::json!({ "webhooks": [{ "name": "a", "url": url }] }).to_string());
        assert!(c.endpoints.len() == 1 || c.warnings[0].contains("not a URL with scheme and host"), "{url}");
        c.endpoints.len() == 1
    };
    for url in ["http://h", "HTTP://h/x", "Https://u:p@h:1/", " http://[::1]/ ", "http://h?a=http:///x"] {
        assert!(taken(url), "{url}");
    }
    for url in [
        "http:///nohost",
        "http:foo.example/x",
        "http:/foo.example/x",
        "https:////foo.example",
        "http:\\\\foo.example",
        "http://\\foo.example",
        "http://",
        "http://?x=foo.example",
        "http://#foo.example",
    ] {
        assert!(!taken(url), "{url}");
    }
}

#[test]
fn a_config_json_of_lazyagent_with_an_empty_secret_and_agents_of_its_own_works() {
    let c = parse(
        r#"{"agents":{"claude":true,"copilot":true,"codex":false},
            "webhooks":[{"name":"a","url":"http://h/","secret":""},
                        {"name":"b","url":"http://h/","secret":"","secret_env":"TOKEN"},
                        {"name":"c","url":"http://h/","secret":["",""]}]}"#,
    );
    assert!(c.agents.contains(&Agent::Claude) && !c.agents.contains(&Agent::Codex));
    let secrets: Vec<_> = c.endpoints.iter().map(|e| (e.name.as_str(), e.secrets.len())).collect();
    assert_eq!(secrets, [("a", 0), ("b", 1)]);
    let said = c.warnings.join("\n");
    assert!(said.contains("agents: found \"copilot\", which is passed over"), "{said}");
    assert!(said.contains("webhook \"a\": an empty secret counts as none"), "{said}");
    assert!(
        said.contains("webhook \"c\" is skipped: webhooks[2].secret: a secret may not be empty"),
        "{said}"
    );

    let toml = parse("[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\nsecret = \"\"\n");
    assert!(
        toml.endpoints.is_empty() && toml.warnings[0].contains("may not be empty"),
        "{:?}",
        toml.warnings
    );
    assert!(invalid("[agents]\ncopilot = true\n").contains("unknown agent"));
}

#[test]
fn include_may_be_the_empty_list_and_nothing_else() {
    let with = |include: &str| {
        parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"http://h/","include":{include}}}]}}"#))
    };
    let c = with("[]");
    assert!(c.endpoints.len() == 1 && c.warnings.is_empty(), "{:?}", c.warnings);
    for (include, part) in [
        (r#"["last_message"]"#, "found \"last_message\": this version does not have this key yet"),
        (r#""last_message""#, "found \"last_message\": this version does not have this key yet"),
        ("true", "expected"),
    ] {
        let c = with(include);
        assert!(c.endpoints.is_empty() && c.warnings[0].contains(part), "{:?}", c.warnings);
    }
}

#[test]
fn hosts_of_teams_get_no_raw_event_unless_it_is_asked_for() {
    let with = |host: &str, more: &str| {
        parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"https://{host}/x"{more}}}]}}"#))
    };
    for host in ["acme.webhook.office.com", "WEBHOOK.office.com"] {
        let c = with(host, "");
        assert!(c.endpoints.is_empty(), "{host}");
        assert!(c.warnings[0].contains("takes the format \"teams\", which this version does not have yet"));
        assert_eq!(with(host, r#","format":"json""#).endpoints.len(), 1, "{host}");
    }
    for host in ["prod-1.westeurope.logic.azure.com", "x.environment.api.powerplatform.com"] {
        let c = with(host, "");
        assert!(
            c.endpoints.len() == 1 && c.warnings[0].contains("may be a flow that posts to Teams"),
            "{host}"
        );
        assert!(with(host, r#","format":"json""#).warnings.is_empty(), "{host}");
    }
    assert!(with("notlogic.azure.com", "").warnings.is_empty());
    assert_eq!(with("notwebhook.office.com", "").endpoints.len(), 1);
}

#[test]
fn a_secret_file_that_is_no_text_says_how_a_binary_key_is_written() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("key");
    std::fs::write(&path, [0xff, 0xfe, 7]).expect("a file can be written");
    let entry = serde_json::json!({ "name": "a", "url": "http://h/", "secret_file": path });
    let c = parse(&serde_json::json!({ "webhooks": [entry] }).to_string());
    let wanted = format!("{} is not text; write a binary key as whsec_ and its base64", path.display());
    assert!(c.endpoints.is_empty() && c.warnings[0].contains(&wanted), "{:?}", c.warnings);
}

#[test]
fn headers_take_variables_and_bad_ones_make_a_bad_entry_without_their_value() {
    let entry = |headers: &str| {
        parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"http://h/","headers":{headers}}}]}}"#))
    };
    let c = entry(r#"{"Authorization":"Bearer ${TOKEN}!","x-a":"${TOKEN}${HOME}"}"#);
    let shown: Vec<_> =
        c.endpoints[0].headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    let want = [("authorization", "Bearer sixteen-characters!"), ("x-a", "sixteen-characters/home/dev")];
    assert_eq!(shown, want);
    assert!(!format!("{c:?}").contains("sixteen-characters"));
    assert!(c.runs.never.contains("TOKEN"), "agents do not get it");
    for (headers, part) in [
        (r#"{"x":"a\nb-hunter2"}"#, "holds a character"),
        (r#"{"x":"\u0000hunter2"}"#, "holds a character"),
        (r#"{"x":"${NOT_SET} hunter2"}"#, "the variable \"NOT_SET\" is not set"),
        (r#"{"x":"hunter2 ${TOKEN"}"#, "has no \"}\""),
        (r#"{"Host":"hunter2"}"#, "\"host\" is ringback's own"),
        (r#"{"content-LENGTH":"hunter2"}"#, "is ringback's own"),
        (r#"{"Transfer-Encoding":"hunter2"}"#, "is ringback's own"),
        (r#"{"Content-Type":"hunter2"}"#, "is ringback's own"),
        (r#"{"Webhook-Id":"hunter2"}"#, "is ringback's own"),
        (r#"{"X-Lazyagent-Anything":"hunter2"}"#, "is ringback's own"),
        (r#"{"X-Ringback-Attempt":"hunter2"}"#, "is ringback's own"),
        (r#"{"a b":"hunter2"}"#, "is no header name"),
        (r#"{"x":"hunter2","X":"1"}"#, "is given twice"),
        (r#"{"x":7}"#, "expected a table of names and strings"),
        (r#"["hunter2"]"#, "expected a table of names and strings"),
    ] {
        let c = entry(headers);
        assert!(c.endpoints.is_empty(), "{headers}");
        assert_eq!(c.warnings.len(), 1, "{:?}", c.warnings);
        assert!(c.warnings[0].contains(part) && !c.warnings[0].contains("hunter2"), "{}", c.warnings[0]);
    }
}

#[test]
fn order_rate_and_patience_are_read() {
    let c = parse(
        r#"{"delivery":{"disable_after":"2d"},
            "webhooks":[{"name":"a","url":"http://h/","ordered":true,"rate":"30/m"},
                        {"name":"b","url":"http://h/"},
                        {"name":"c","url":"http://h/","rate":"fast"}]}"#,
    );
    let read: Vec<_> = c.endpoints.iter().map(|e| (e.ordered, e.rate.map(|r| r.to_string()))).collect();
    assert_eq!(read, [(true, Some("30/m".to_owned())), (false, None)]);
    assert_eq!(c.delivery.disable_after, Duration::from_secs(2 * 86_400));
    assert!(c.warnings[0].contains("\"fast\"") && c.warnings[0].contains("\"30/m\""), "{}", c.warnings[0]);
    assert_eq!(parse("").delivery.disable_after, Duration::from_secs(5 * 86_400));
}

#[test]
fn projects_without_a_wildcard_are_that_directory_and_all_below() {
    let c = parse(r#"{"webhooks":[{"name":"a","url":"http://h/","projects":["~/code","/srv/*/app"]}]}"#);
    let globs = c.endpoints[0].projects.as_ref().expect("the entry has projects");
    for (path, matches) in [
        ("/home/dev/code", true),
        ("/home/dev/code/site/sub", true),
        ("/home/dev/codex", false),
        ("/srv/x/app", true),
        ("/srv/app", false),
    ] {
        assert_eq!(globs.is_match(path), matches, "{path}");
    }
}

#[test]
fn the_network_is_one_of_two_words() {
    assert_eq!(parse("").delivery.network, Network::Local);
    assert_eq!(parse("[delivery]\nnetwork = \"local\"\n").delivery.network, Network::Local);
    assert_eq!(parse("[delivery]\nnetwork = \"server\"\n").delivery.network, Network::Server);
    let message = invalid("[delivery]\nnetwork = \"lan\"\n");
    assert!(message.contains("delivery.network (line 2): expected \"local\" or \"server\""), "{message}");
}

#[test]
fn proxies_of_the_environment_are_used_only_with_proxy_env() {
    let with = |value: &str, text: &str| {
        let env = [("HOME", "/home/dev"), ("HTTPS_PROXY", value)];
        read(text, None, &Env::of(env.map(|(k, v)| (k.to_owned(), v.to_owned()))))
    };
    let asked = "[delivery]\nproxy = \"env\"\n";
    let read = |value, text| with(value, text).map(|c| c.delivery.proxies.is_some());
    assert!(!read("http://p:1", "").expect("it is not looked at"));
    assert!(!read("nonsense hunter2", "").expect("it is not looked at"));
    assert!(read("http://p:1", asked).expect("it is a proxy"));
    assert!(!read("", asked).expect("an empty variable is none"));
    let error = with("socks5://hunter2", asked).expect_err("it cannot be used").to_string();
    assert!(error.contains("delivery.proxy (line 2): HTTPS_PROXY is not"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(invalid("[delivery]\nproxy = \"http://p:1\"\n").contains("expected \"env\""));
}

#[test]
fn allow_takes_networks_and_addresses_and_nothing_that_could_have_no_effect() {
    let with =
        |allow: &str| parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"http://h/","allow":{allow}}}]}}"#));
    let good = with(r#"["10.1.2.3/8", " 192.168.0.7 ", "fd00::/8"]"#);
    let nets: Vec<_> = good.endpoints[0].allow.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "192.168.0.7/32", "fd00::/8"]);
    for (allow, part) in [
        (r#"["10.0.0.0/33"]"#, "\"10.0.0.0/33\" is not an address or a network such as"),
        (r#"["example.com"]"#, "\"example.com\" is not an address or a network such as"),
        (r#"["10.0.0.0/8", "169.254.169.254"]"#, "\"169.254.169.254\" is never allowed: link-local"),
        (r#""10.0.0.0/8""#, "expected a list of strings"),
    ] {
        let bad = with(allow);
        assert!(bad.endpoints.is_empty(), "{allow}");
        assert!(bad.warnings.len() == 1 && bad.warnings[0].contains(part), "{:?}", bad.warnings);
    }
}

#[test]
fn what_is_left_out_has_the_contract_s_default() {
    let c = parse(r#"{"webhooks":[{"name":"a","url":"http://h/"}]}"#);
    let e = &c.endpoints[0];
    assert!(e.secrets.is_empty() && e.headers.is_empty() && e.allow.is_empty() && e.projects.is_none());
    assert!(e.events.is_empty() && e.agents.is_empty() && e.reasons.is_empty());
    assert_eq!((e.runs, e.enabled, e.ordered, e.rate), (false, true, false, None));
    assert_eq!(e.format, ringback_model::Format::Json);
    assert_eq!((e.concurrency, e.timeout), (4, Duration::from_secs(10)));
    assert_eq!(e.backoff, [1, 5, 30].map(Duration::from_secs));
    let d = &c.delivery;
    assert!(d.durable && d.network == Network::Local && d.proxies.is_none());
    assert_eq!((d.dedup_window, d.catch_up), (Duration::from_secs(2), Duration::from_secs(600)));
    let days = |n: u64| Duration::from_secs(n * 86_400);
    assert_eq!((d.disable_after, d.retention, d.retention_size), (days(5), days(7), 1 << 30));
}

#[test]
fn nothing_secret_is_shown_when_the_configuration_is_printed() {
    let c = parse(
        r#"{"webhooks":[{"name":"a","url":"https://u:hunter2@h/p?q=hunter2","secret":"hunter2hunter2hunter2"}]}"#,
    );
    assert!(!format!("{c:?}").contains("hunter2"));
    assert_eq!(c.endpoints[0].shown_url(), "https://h/***");
}
