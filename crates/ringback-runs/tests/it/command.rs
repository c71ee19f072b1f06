//! The `command` adapter and everything that all adapters share: streams, environment, limits, orders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ringback_model::{Secret, SessionId};
use ringback_runs::{End, Limits, Mcp, Order, Session, Spec, StartError, start};
use tokio::sync::watch;

use crate::kit::{Bench, DEADLINE, environment, is_alive};

/// A limit that is certain to pass.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn the_prompt_arrives_on_standard_input_byte_for_byte() {
    let mut bench = Bench::script("cat > got");
    let strange = "--help 'a' \"b\" $HOME `id` \\ \r\n\t\u{0}\u{fc}\u{1f600}\n";
    bench.spec.prompt = strange.repeat((1 << 20) / strange.len() + 1);
    assert_eq!(bench.run().await.end, End::Completed);
    assert!(fs::read_to_string(bench.path("got")).unwrap() == bench.spec.prompt);
}

#[tokio::test]
async fn a_program_that_does_not_read_its_prompt_may_complete_all_the_same() {
    let mut bench = Bench::script("exit 0");
    bench.spec.prompt = "x".repeat(1 << 20);
    let outcome = bench.run().await;
    assert_eq!((outcome.end, outcome.exit_code, outcome.signal), (End::Completed, Some(0), None));
}

#[tokio::test]
async fn another_exit_code_is_a_failure_in_the_programs_last_words() {
    let outcome = Bench::script("echo fine; echo first >&2; echo 'no such repo' >&2; exit 3").run().await;
    assert_eq!(outcome.end, End::Failed("first\nno such repo".to_owned()));
    assert_eq!(outcome.exit_code, Some(3));

    let outcome = Bench::script("kill -9 $$").run().await;
    assert_eq!((outcome.end, outcome.signal), (End::Failed("ended by signal 9".to_owned()), Some(9)));
}

#[tokio::test]
async fn output_is_captured_for_the_owner_alone() {
    let bench = Bench::script("echo to out; echo to err >&2");
    bench.run().await;
    assert_eq!(bench.output("stdout.log"), "to out\n");
    assert_eq!(bench.output("stderr.log"), "to err\n");
    let mode = |below: &str| fs::metadata(bench.path(below)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("runs/1"), mode("runs/1/stdout.log"), mode("runs/1/stderr.log")), (0o700, 0o600, 0o600));
}

#[tokio::test]
async fn output_beyond_10_mib_is_read_and_thrown_away_with_a_mark() {
    let bench = Bench::script("head -c 20000000 /dev/zero | tr '\\0' x; echo read on >&2; echo done > done");
    assert_eq!(bench.run().await.end, End::Completed);
    let kept = bench.output("stdout.log");
    assert_eq!(kept.len(), 10 << 20);
    assert!(kept.trim_end().ends_with("[ringback: the rest of more than 10 MiB is not kept]"));
    assert_eq!(bench.output("stderr.log"), "read on\n");
    assert_eq!(bench.read("done"), "done\n");
}

#[tokio::test]
async fn the_environment_holds_exactly_what_it_may() {
    let mut bench = Bench::script("env > env");
    bench.spec.env = environment(&[("PATH", "/usr/bin:/bin"), ("LANG", "C"), ("RINGBACK_RUN", "another")]);
    bench.spec.mcp = Some(Mcp { url: "http://127.0.0.1:9/mcp".to_owned(), token: Secret::new("t0ken") });
    bench.run().await;
    let env = bench.read("env");
    // The shell sets some for itself.
    let mut seen: Vec<&str> = env
        .lines()
        .filter(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)))
        .collect();
    seen.sort_unstable();
    let run = format!("RINGBACK_RUN={}", bench.spec.run_id);
    let expected = [
        "LANG=C",
        "PATH=/usr/bin:/bin",
        "RINGBACK_MCP_TOKEN=t0ken",
        "RINGBACK_MCP_URL=http://127.0.0.1:9/mcp",
        run.as_str(),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_token_of_the_run_is_not_told_in_its_error() {
    let mut bench = Bench::script("echo \"refused: $RINGBACK_MCP_TOKEN\" >&2; exit 1");
    bench.spec.mcp = Some(Mcp { url: "http://127.0.0.1:9/mcp".to_owned(), token: Secret::new("t0ken") });
    assert_eq!(bench.run().await.end, End::Failed("refused: ***".to_owned()));
}

#[tokio::test]
async fn at_the_timeout_the_group_gets_term() {
    let mut bench = Bench::script("exec sleep 1000");
    bench.spec.limits = Limits::new(SHORT);
    let outcome = bench.run().await;
    assert_eq!((outcome.end, outcome.signal), (End::TimedOut, Some(15)));
}

#[tokio::test]
async fn an_agent_may_tidy_up_when_it_gets_term() {
    let bench =
        Bench::script("trap 'echo tidy > tidied; exit 7' TERM\necho > started\nwhile :; do sleep 0.05; done");
    let running = start(&bench.spec).unwrap();
    let (orders, listener) = watch::channel(Order::Proceed);
    let waiting = tokio::spawn(async move { running.wait(listener, &mut ()).await });
    bench.wait_for("started").await;
    orders.send(Order::Cancel).unwrap();
    let outcome = waiting.await.unwrap();
    assert_eq!((outcome.end, outcome.exit_code), (End::Cancelled, Some(7)));
    assert_eq!(bench.read("tidied"), "tidy\n");
}

#[tokio::test]
async fn a_grandchild_that_ignores_term_is_killed_with_the_group() {
    let mut bench = Bench::script(
        "(trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 0.05; done' & wait) &\nwait",
    );
    bench.spec.limits = Limits { kill_after: SHORT, ..Limits::new(DEADLINE) };
    let running = start(&bench.spec).unwrap();
    let leader = running.leader();
    let (orders, listener) = watch::channel(Order::Proceed);
    let waiting = tokio::spawn(async move { running.wait(listener, &mut ()).await });
    let grandchild = bench.wait_for("grandchild").await;
    assert!(is_alive(&grandchild));
    orders.send(Order::Cancel).unwrap();
    let outcome = waiting.await.unwrap();
    assert_eq!((outcome.end, outcome.signal), (End::Cancelled, Some(15)));
    assert!(!is_alive(&grandchild) && !is_alive(&leader.pid.to_string()));
}

#[tokio::test]
async fn after_the_agents_own_end_no_process_of_its_group_is_left() {
    let bench =
        Bench::script("sh -c 'echo $$ > left; exec sleep 1000' &\nwhile ! [ -s left ]; do sleep 0.01; done");
    let outcome = bench.run().await;
    assert_eq!(outcome.end, End::Completed);
    assert!(!is_alive(&bench.read("left")));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_of_the_run_in_a_session_of_its_own_is_ended_too() {
    let bench = Bench::script(
        "setsid sh -c 'echo $$ > left; exec sleep 1000' &\nwhile ! [ -s left ]; do sleep 0.01; done",
    );
    let outcome = bench.run().await;
    assert_eq!(outcome.end, End::Completed);
    assert!(!is_alive(&bench.read("left")));
}

#[tokio::test]
async fn an_order_that_was_given_before_anybody_listened_counts() {
    let bench = Bench::script("exec sleep 1000");
    let running = start(&bench.spec).unwrap();
    let (_orders, listener) = watch::channel(Order::Cancel);
    assert_eq!(running.wait(listener, &mut ()).await.end, End::Cancelled);
}

#[tokio::test]
async fn an_interrupted_run_may_end_by_itself_before_it_gets_term() {
    let interrupt = async |body: &str, interrupt_after| {
        let mut bench = Bench::script(body);
        bench.spec.limits = Limits { interrupt_after, ..Limits::new(DEADLINE) };
        let running = start(&bench.spec).unwrap();
        let (orders, listener) = watch::channel(Order::Proceed);
        let waiting = tokio::spawn(async move { running.wait(listener, &mut ()).await });
        bench.wait_for("started").await;
        orders.send(Order::Interrupt).unwrap();
        fs::write(bench.path("go on"), "").unwrap();
        waiting.await.unwrap().end
    };
    let ends = "echo > started; while ! [ -e 'go on' ]; do sleep 0.01; done";
    assert_eq!(interrupt(ends, DEADLINE).await, End::Completed);
    assert_eq!(interrupt("echo > started; exec sleep 1000", SHORT).await, End::Interrupted);
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_killed() {
    let bench = Bench::script("sh -c 'echo $$ > child; exec sleep 1000' &\nwait");
    let running = start(&bench.spec).unwrap();
    let child = bench.wait_for("child").await;
    drop(running);
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while is_alive(&child) {
        assert!(tokio::time::Instant::now() < give_up, "it is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let bench = Bench::script("");
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = bench.spec.clone();
        change(&mut spec);
        start(&spec).expect_err("it must be refused").to_string()
    };
    assert_eq!(refused(&|s| s.command = vec!["no-such-agent".into()]), "agent not available: no-such-agent");
    assert_eq!(refused(&|s| s.cwd = "/no/such/place".into()), "no such directory: /no/such/place");
    assert_eq!(refused(&|s| s.model = Some("--yolo".into())), "invalid model: \"--yolo\"");
    assert_eq!(refused(&|s| s.allowed_tools = vec!["-x".into()]), "invalid tool: \"-x\"");
    assert_eq!(refused(&|s| s.denied_dirs = vec!["here".into()]), "invalid denied directory: \"here\"");
    assert_eq!(refused(&|s| s.max_cost_usd = Some(f64::NAN)), "invalid max_cost_usd: \"NaN\"");
    assert_eq!(refused(&|s| s.command = vec![]), "invalid command: \"\"");
    let fork = |s: &mut Spec| s.session = Session::Fork { of: SessionId::new("--x"), id: None };
    assert_eq!(refused(&fork), "invalid session: \"--x\"");
    assert!(!bench.path("runs").exists(), "a refused run leaves nothing behind");

    fs::write(bench.path("runs"), "a file").unwrap();
    assert!(matches!(start(&bench.spec), Err(StartError::Output { .. })));
}
