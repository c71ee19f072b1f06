use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::Method;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringback_model::Secret;
use serde_json::{Value, json};
use tokio::sync::{Barrier, Notify};
use tower::ServiceExt;
use uuid::Uuid;

use super::*;

const ALL: ToolSet = ToolSet { ping: true, report: true };
const RUN: RunId = RunId(Uuid::nil());
const DEADLINE: Duration = Duration::from_secs(20);

/// A toolbox that notes what it was asked.
#[derive(Default)]
struct Fake {
    calls: Mutex<Vec<String>>,
    /// Told when a ping has begun.
    begun: Notify,
    /// Where every ping waits for the others.
    meeting: Option<Barrier>,
}

impl Fake {
    fn note(&self, call: String) -> Result<String, ToolFailure> {
        self.calls.lock().unwrap().push(call.clone());
        if call.contains("full disk") {
            return Err(ToolFailure { message: "the message could not be stored; try again".to_owned() });
        }
        Ok(format!("did {call}"))
    }
}

#[async_trait]
impl Toolbox for Fake {
    async fn ping_user(&self, run: RunId, message: &str, critical: bool) -> Result<String, ToolFailure> {
        self.begun.notify_one();
        if let Some(meeting) = &self.meeting {
            meeting.wait().await;
        }
        self.note(format!("ping {run} {message} {critical}"))
    }

    async fn discord_embed(
        &self,
        run: RunId,
        input: EmbedInput,
        critical: bool,
    ) -> Result<String, ToolFailure> {
        self.note(format!("embed {run} {} {} {critical}", input.title, input.fields.len()))
    }

    async fn report_updates(&self, run: RunId, message: &str) -> Result<String, ToolFailure> {
        self.note(format!("report {run} {message}"))
    }
}

struct Bench {
    router: Router,
    tokens: Tokens,
    toolbox: Arc<Fake>,
}

impl Bench {
    fn new(toolbox: Fake) -> Self {
        let (tokens, toolbox) = (Tokens::default(), Arc::new(toolbox));
        let router = service(tokens.clone(), toolbox.clone(), vec!["box.example.com".to_owned()]);
        Bench { router, tokens, toolbox }
    }

    fn token(&self, run: RunId, tools: ToolSet) -> Secret {
        self.tokens.issue(run, tools).unwrap()
    }

    async fn send(
        &self,
        request: axum::http::request::Builder,
        body: impl Into<Body>,
    ) -> (StatusCode, String) {
        let request = request.body(body.into()).unwrap();
        let answered = tokio::time::timeout(DEADLINE, self.router.clone().oneshot(request)).await;
        let response = answered.expect("an answer before the deadline").unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The JSON-RPC answer to a request that is let in.
    async fn rpc(&self, token: &Secret, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let (status, answer) = self.send(request(token), body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["id"], 7);
        answer
    }

    /// Text and `isError` of a tool's result.
    async fn call(&self, token: &Secret, tool: &str, arguments: Value) -> (String, bool) {
        let answer = self.rpc(token, "tools/call", json!({"name": tool, "arguments": arguments})).await;
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (text.to_owned(), result["isError"].as_bool().unwrap())
    }

    async fn listed(&self, token: &Secret) -> Vec<Value> {
        let answer = self.rpc(token, "tools/list", json!({})).await;
        answer["result"]["tools"].as_array().unwrap().clone()
    }

    fn calls(&self) -> Vec<String> {
        self.toolbox.calls.lock().unwrap().clone()
    }
}

/// A request as agents send it, for `Host: 127.0.0.1`.
fn request(token: &Secret) -> axum::http::request::Builder {
    stranger().header(header::HOST, "127.0.0.1:4711").header(header::AUTHORIZATION, bearer_of(token))
}

fn stranger() -> axum::http::request::Builder {
    Request::post(PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream")
}

fn bearer_of(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

fn list() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string()
}

fn names(tools: &[Value]) -> Vec<&str> {
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_token_decides_which_tools_are_listed() {
    let bench = Bench::new(Fake::default());
    for (n, (ping, report, expected)) in [
        (true, true, &["ping_user", "discord_embed", "report_updates"][..]),
        (true, false, &["ping_user", "discord_embed"]),
        (false, true, &["report_updates"]),
        (false, false, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let token = bench.token(RunId(Uuid::from_u128(n as u128)), ToolSet { ping, report });
        assert_eq!(names(&bench.listed(&token).await), expected);
    }
}

#[tokio::test]
async fn schemas_name_colours_limits_and_defaults() {
    let bench = Bench::new(Fake::default());
    let tools = bench.listed(&bench.token(RUN, ALL)).await;
    let schema = |at: usize| &tools[at]["inputSchema"];
    for tool in &tools {
        assert!(tool["description"].as_str().is_some_and(|text| !text.contains('\n')), "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object");
    }
    assert_eq!(schema(0)["required"], json!(["message"]));
    assert_eq!(schema(0)["properties"]["critical"]["default"], false);
    let embed = &schema(1)["properties"];
    assert_eq!(schema(1)["required"], json!(["title"]));
    assert_eq!(embed["color"]["enum"], json!(["blue", "green", "red", "yellow", "purple"]));
    assert_eq!((&embed["fields"]["maxItems"], &embed["buttons"]["maxItems"]), (&json!(25), &json!(5)));
    assert_eq!(embed["buttons"]["items"]["properties"]["url"]["pattern"], "^https://");
    assert_eq!(schema(2)["required"], json!(["message"]));
}

#[tokio::test]
async fn hints_spare_a_headless_run_the_approval_of_its_own_tools() {
    let bench = Bench::new(Fake::default());
    for tool in bench.listed(&bench.token(RUN, ALL)).await {
        assert_eq!(tool["annotations"]["destructiveHint"], false, "{tool}");
        assert_eq!(tool["annotations"]["openWorldHint"], false, "{tool}");
    }
}

#[tokio::test]
async fn each_tool_reaches_the_toolbox_with_the_run_of_its_token() {
    let bench = Bench::new(Fake::default());
    let run = RunId(Uuid::from_u128(9));
    let (token, _other) = (bench.token(run, ALL), bench.token(RUN, ALL));
    let told = bench.call(&token, "ping_user", json!({"message": "hi"})).await;
    assert_eq!(told, (format!("did ping {run} hi false"), false));
    bench.call(&token, "ping_user", json!({"message": "fire", "critical": "True"})).await;
    let card = json!({"title": "t", "fields": [{"name": "n", "value": "v"}], "critical": true});
    bench.call(&token, "discord_embed", card).await;
    bench.call(&token, "report_updates", json!({"message": "done"})).await;
    assert_eq!(
        bench.calls(),
        [
            format!("ping {run} hi false"),
            format!("ping {run} fire true"),
            format!("embed {run} t 1 true"),
            format!("report {run} done"),
        ]
    );
}

#[tokio::test]
async fn failures_and_invalid_arguments_are_results_with_is_error() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let failed = bench.call(&token, "report_updates", json!({"message": "full disk"})).await;
    assert_eq!(failed, ("the message could not be stored; try again".to_owned(), true));
    let (told, is_error) = bench.call(&token, "ping_user", json!({"critical": true})).await;
    assert!(is_error && told.starts_with("message is missing; call the tool again with"), "{told}");
    let bare = bench.rpc(&token, "tools/call", json!({"name": "discord_embed"})).await;
    assert_eq!(bare["result"]["isError"], true, "{bare}");
    assert_eq!(bench.calls().len(), 1, "what is invalid does not reach the toolbox");
}

#[tokio::test]
async fn an_absent_tool_is_error_32602() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ToolSet { ping: false, report: true });
    for name in ["ping_user", "discord_embed", "PING_USER", "", "rm\u{202e} -rf"] {
        let params = json!({"name": name, "arguments": {"message": "m"}});
        let answer = bench.rpc(&token, "tools/call", params).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let told = answer["error"]["message"].as_str().unwrap();
        assert!(told.starts_with("this run has no tool named ") && !told.chars().any(escape::is_hidden));
    }
    assert_eq!(bench.calls(), [""; 0]);
}

#[tokio::test]
async fn a_request_without_a_live_token_is_401() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let good = bearer_of(&token);
    let basic = format!("Basic {}", token.reveal());
    for headers in [
        &[][..],
        &["Bearer"],
        &["Bearer "],
        &["Bearer unknown"],
        &[token.reveal()],
        &[&basic],
        &[&good, &good],
        &["Bearer unknown", &good],
    ] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let mut request = stranger().method(method).header(header::HOST, "localhost");
            for value in headers {
                request = request.header(header::AUTHORIZATION, *value);
            }
            let request = request.body(Body::from(list())).unwrap();
            let response = bench.router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
    let lower = stranger().header(header::HOST, "localhost");
    let lower = lower.header(header::AUTHORIZATION, format!("bearer {}", token.reveal()));
    assert_eq!(bench.send(lower, list()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_revoked_runs_next_request_is_401() {
    let bench = Bench::new(Fake::default());
    let other = bench.token(RunId(Uuid::from_u128(1)), ALL);
    let token = bench.token(RUN, ALL);
    assert_eq!(bench.send(request(&token), list()).await.0, StatusCode::OK);
    bench.tokens.revoke(RUN);
    assert_eq!(bench.send(request(&token), list()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.send(request(&other), list()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn another_host_and_pages_of_a_browser_are_403() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let with_host =
        |host: &str| stranger().header(header::AUTHORIZATION, bearer_of(&token)).header(header::HOST, host);
    for (host, status) in [
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("box.example.com", 200),
        ("evil.example.com", 403),
        ("127.0.0.1.evil.example.com", 403),
    ] {
        assert_eq!(bench.send(with_host(host), list()).await.0, status, "{host}");
    }
    for origin in ["https://evil.example.com", "http://localhost", "null"] {
        let request = with_host("localhost").header(header::ORIGIN, origin);
        assert_eq!(bench.send(request, list()).await.0, StatusCode::FORBIDDEN, "{origin}");
    }
    let closed = service(bench.tokens.clone(), bench.toolbox.clone(), Vec::new());
    let request = with_host("evil.example.com").body(Body::from(list())).unwrap();
    assert_eq!(closed.oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_client_opens_as_the_protocol_says() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"},
    });
    let answer = bench.rpc(&token, "initialize", params).await;
    assert_eq!(answer["result"]["serverInfo"]["name"], "ringback");
    assert_eq!(answer["result"]["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
    assert!(answer["result"]["capabilities"]["tools"].is_object());
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    assert_eq!(bench.send(request(&token), initialized).await.0, StatusCode::ACCEPTED);
    assert_eq!(bench.send(request(&token).method(Method::GET), "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let unknown = bench.rpc(&token, "no/such", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601);
}

#[tokio::test]
async fn a_client_of_the_stateless_protocol_needs_no_initialize() {
    const VERSION: &str = "2026-07-28";
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ToolSet { ping: false, report: true });
    let send = async |method: &str, name: Option<&str>, mut params: Value| {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut request =
            request(&token).header("mcp-protocol-version", VERSION).header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (_, answer) = bench.send(request, body.to_string()).await;
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let discovered = send("server/discover", None, json!({})).await;
    assert!(discovered["result"]["supportedVersions"].as_array().unwrap().contains(&json!(VERSION)));
    let listed = send("tools/list", None, json!({})).await;
    assert_eq!(names(listed["result"]["tools"].as_array().unwrap()), ["report_updates"]);
    assert_eq!(listed["result"]["cacheScope"], "private", "a list belongs to its token");
    let message = json!({"message": "done"});
    let called =
        send("tools/call", Some("report_updates"), json!({"name": "report_updates", "arguments": message}))
            .await;
    assert_eq!(called["result"]["isError"], false, "{called}");
    let absent =
        send("tools/call", Some("ping_user"), json!({"name": "ping_user", "arguments": message})).await;
    assert_eq!(absent["error"]["code"], -32602, "{absent}");
    assert_eq!(bench.calls(), [format!("report {RUN} done")]);
}

#[tokio::test]
async fn a_body_over_1_mib_is_413() {
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let call = |chars: usize| {
        let params = json!({"name": "report_updates", "arguments": {"message": "x".repeat(chars)}});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    };
    assert_eq!(bench.send(request(&token), call(MAX_BODY - 1_000)).await.0, StatusCode::OK);
    assert_eq!(bench.send(request(&token), call(MAX_BODY)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test]
async fn calls_do_not_wait_for_each_other() {
    const CALLS: usize = 16;
    let bench = Bench::new(Fake { meeting: Some(Barrier::new(CALLS)), ..Fake::default() });
    // Every call waits in the toolbox until all of them are there.
    let calls = (0..CALLS).map(async |n| {
        let run = RunId(Uuid::from_u128(n as u128));
        let token = bench.token(run, ALL);
        let told = bench.call(&token, "ping_user", json!({"message": n})).await;
        assert_eq!(told, (format!("did ping {run} {n} false"), false));
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(bench.calls().len(), CALLS);
}

#[tokio::test]
async fn a_call_that_has_begun_ends_even_if_the_agent_hangs_up() {
    let bench = Bench::new(Fake { meeting: Some(Barrier::new(2)), ..Fake::default() });
    let token = bench.token(RUN, ALL);
    let params = json!({"name": "ping_user", "arguments": {"message": "late"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let call = tokio::spawn(bench.router.clone().oneshot(request(&token).body(Body::from(body)).unwrap()));
    let hang_up = async {
        bench.toolbox.begun.notified().await;
        // The second at the meeting lets the first go on; by then the agent is gone.
        call.abort();
        assert!(call.await.is_err_and(|end| end.is_cancelled()));
        bench.toolbox.meeting.as_ref().unwrap().wait().await;
        while bench.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, hang_up).await.expect("the ping is noted before the deadline");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["true", "True", "[]", "[{}]", "red", "[", "2025-06-18", "ping_user"])
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "message",
            "critical",
            "title",
            "fields",
            "buttons",
            "name",
            "value",
            "inline",
            "label",
            "url",
            "color",
            "arguments",
            "_meta",
            "cursor",
            "protocolVersion",
            "capabilities",
            "clientInfo",
            "io.modelcontextprotocol/protocolVersion",
            "io.modelcontextprotocol/clientCapabilities",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Requests that are nearly right.
fn odd_request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        3 => Just("tools/call".to_owned()),
        2 => prop::sample::select(vec![
            "initialize", "server/discover", "tools/list", "ping", "notifications/initialized",
            "notifications/cancelled", "resources/read", "completion/complete", "tasks/get",
            "subscriptions/listen", "logging/setLevel",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let tool = prop::sample::select(vec!["ping_user", "discord_embed", "report_updates", "other"]);
    let arguments = prop_oneof![
        value(),
        // Right for two of the tools, so that the toolbox is reached.
        "[a-z]{1,8}".prop_map(|message| json!({ "message": message })),
        (any::<String>(), value())
            .prop_map(|(message, critical)| json!({"message": message, "critical": critical})),
        (any::<String>(), value(), value()).prop_map(
            |(title, fields, buttons)| json!({"title": title, "fields": [fields], "buttons": buttons})
        ),
    ];
    let params = prop_oneof![
        3 => (tool, arguments).prop_map(|(name, arguments)| json!({"name": name, "arguments": arguments})),
        1 => value(),
    ];
    let id = prop_oneof![9 => Just(json!(1)), 1 => value()];
    (method, params, id).prop_map(|(method, params, id)| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes()
    })
}

fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(any::<u8>(), 0..4));
    (bytes, edit).prop_map(|(mut bytes, (at, removed, added))| {
        let from = at.index(bytes.len() + 1);
        bytes.splice(from..(from + removed).min(bytes.len()), added);
        bytes
    })
}

#[test]
fn survives_generated_bytes_as_the_body_of_a_request() {
    let seconds = std::env::var("RINGBACK_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let until = Instant::now() + Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new(Fake::default());
    let token = bench.token(RUN, ALL);
    let bodies = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..256),
        4 => odd_request(),
        2 => damaged(odd_request()),
    ];
    let version = prop::option::weighted(0.3, prop::sample::select(vec!["2025-06-18", "2026-07-28", "x"]));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(256) });
    // However slow the machine: until some of what is nearly right has reached the toolbox.
    let mut rounds = 0;
    while Instant::now() < until || (bench.calls().len() < 2 && rounds < 100) {
        rounds += 1;
        let outcome = runner.run(&(bodies.clone(), version.clone()), |(body, version)| {
            let mut request = request(&token);
            if let Some(version) = version {
                request = request.header("mcp-protocol-version", version).header("mcp-method", "tools/call");
            }
            // A panic in a handler would leave the request without an answer.
            let (status, answer) = runtime.block_on(bench.send(request, body));
            prop_assert!(status.is_success() || status.is_client_error(), "{status} {answer}");
            if status == StatusCode::OK {
                prop_assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
            }
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    }
    assert!(bench.calls().len() > 1, "some of what is nearly right reaches the toolbox");
    assert_eq!(runtime.block_on(bench.listed(&token)).len(), Tool::ALL.len());
}
