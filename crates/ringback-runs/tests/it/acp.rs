//! The Agent Client Protocol, with small scripts that play agents of bad manners. The real one is in the program's
//! own tests.

use ringback_model::SessionId;
use ringback_runs::{Adapter, End, Host, Limits, Order, Progress, Session, TurnResult, start};
use std::time::Duration;
use tokio::sync::watch;

use crate::kit::{Bench, DEADLINE, finish, is_alive};

const SHORT: Duration = Duration::from_millis(200);

/// An agent that opens a session, reads the prompt, and then does as `body` says.
fn agent(body: &str) -> Bench {
    let opening = r#"
say() { printf '%s\n' "$1"; }
read -r hello
say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{}}}'
read -r new
say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s-1"}}'
read -r prompt
"#;
    let mut bench = Bench::script(&format!("{opening}{body}"));
    bench.spec.adapter = Adapter::Acp;
    bench.spec.allowed_tools = vec!["Read".to_owned()];
    bench
}

const END: &str = r#"say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'"#;

/// Starts the agent, and gives the order once it has written `started`.
async fn order(bench: &Bench, order: Order) -> End {
    let running = start(&bench.spec).unwrap();
    let (orders, listener) = watch::channel(Order::Proceed);
    let waiting = tokio::spawn(async move { running.wait(listener, &mut ()).await });
    bench.wait_for("started").await;
    orders.send(order).unwrap();
    waiting.await.unwrap().end
}

#[tokio::test]
async fn the_prompt_reaches_the_agent_and_its_output_is_kept_whole() {
    let bench = agent(&format!("echo \"$prompt\" > asked\n{END}"));
    let outcome = bench.run().await;
    assert_eq!(outcome.end, End::Completed, "{outcome:?}");
    assert_eq!((outcome.session_id, outcome.cost_usd), (Some(SessionId::new("s-1")), None));
    assert!(bench.read("asked").contains(r#""text":"do it""#));
    assert_eq!(bench.output("output.jsonl").lines().count(), 3);
}

#[tokio::test]
async fn an_agent_that_dies_in_its_turn_fails_with_its_last_words() {
    let outcome = agent("echo 'out of memory' >&2; exit 3").run().await;
    assert_eq!(outcome.end, End::Failed("sh: out of memory".to_owned()));
}

#[tokio::test]
async fn a_tool_that_the_list_lacks_is_refused_and_junk_between_the_lines_does_no_harm() {
    let bench = agent(&format!(
        r#"say 'npm notice: not JSON'; say '[]'; say '{{"jsonrpc":"2.0","method":"x/y","id":7}}'; read -r unknown
say '{{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{{"toolCall":{{"kind":"execute","title":"rm -rf /"}},"options":[{{"optionId":"yes","kind":"allow_once"}},{{"optionId":"no","kind":"reject_once"}}]}}}}'
read -r answer
printf '%s\n%s\n' "$unknown" "$answer" > answers
{END}"#
    ));
    /// Keeps the end of the turn.
    struct Denied(Vec<String>);
    impl Host for Denied {
        fn learn(&mut self, fact: &Progress) {
            if let Progress::Turn(turn) = fact {
                self.0.clone_from(&turn.denied_tools);
            }
        }
    }
    let mut denied = Denied(Vec::new());
    let outcome = finish(start(&bench.spec).unwrap(), &mut denied).await;
    assert_eq!(outcome.end, End::Completed, "{outcome:?}");
    assert_eq!(denied.0, ["rm -rf /"]);
    let answers = bench.read("answers");
    assert!(answers.contains("-32601") && answers.contains(r#""optionId":"no""#), "{answers}");
}

#[tokio::test]
async fn a_cancelled_turn_may_end_before_its_agent_is_ended() {
    let bench = agent(
        r#"echo > started; read -r cancel; echo "$cancel" > cancel
say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"cancelled"}}'; read -r nothing"#,
    );
    assert_eq!(order(&bench, Order::Cancel).await, End::Cancelled);
    assert!(bench.read("cancel").contains("session/cancel"));
}

#[tokio::test]
async fn an_agent_that_ignores_the_cancel_and_term_is_killed_with_its_whole_group() {
    let mut bench = agent(
        "trap '' TERM\nsh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.05; done' &\n\
         while ! [ -s child ]; do sleep 0.01; done; echo > started; wait",
    );
    bench.spec.limits = Limits { kill_after: SHORT, ..Limits::new(DEADLINE) };
    assert_eq!(order(&bench, Order::Cancel).await, End::Cancelled);
    assert!(!is_alive(&bench.read("child")));
}

#[tokio::test]
async fn an_agent_that_stays_after_its_turn_is_made_to_leave_and_the_run_is_complete() {
    let bench = agent(&format!("echo $$ > stays; {END}; exec sleep 1000"));
    assert_eq!(bench.run().await.end, End::Completed);
    assert!(!is_alive(&bench.read("stays")));
}

#[tokio::test]
async fn a_run_may_get_one_more_turn_in_the_same_session() {
    /// Asks once.
    struct Once(Option<String>);
    impl Host for Once {
        fn another_turn(&mut self, _: &TurnResult) -> Option<String> {
            self.0.take()
        }
    }
    let bench = agent(&format!(
        "{END}\nread -r more; echo \"$more\" > more\nsay '{{\"id\":4,\"result\":{{\"stopReason\":\"end_turn\"}}}}'"
    ));
    let outcome = finish(start(&bench.spec).unwrap(), &mut Once(Some("now report".to_owned()))).await;
    assert_eq!(outcome.end, End::Completed, "{outcome:?}");
    let more = bench.read("more");
    assert!(more.contains("now report") && more.contains(r#""sessionId":"s-1""#), "{more}");
}

#[tokio::test]
async fn an_agent_that_cannot_fork_works_without_history_and_says_so() {
    /// Was it told?
    struct Told(bool);
    impl Host for Told {
        fn learn(&mut self, fact: &Progress) {
            self.0 |= *fact == Progress::WithoutHistory;
        }
    }
    let mut bench = agent(&format!("echo \"$prompt\" > asked\n{END}"));
    bench.spec.session = Session::Fork { of: SessionId::new("ses_1"), id: None };
    bench.spec.prompt_without_history = Some("without history".to_owned());
    let mut told = Told(false);
    assert_eq!(finish(start(&bench.spec).unwrap(), &mut told).await.end, End::Completed);
    assert!(told.0 && bench.read("asked").contains("without history"));
}
