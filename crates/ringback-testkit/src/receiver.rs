//! The endpoint that webhooks are sent to, scripted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{self, Message};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Order of arrival, from 0.
    pub number: usize,
    /// `POST`.
    pub method: String,
    /// The request target, query included.
    pub path: String,
    /// When its last byte was read.
    pub at: Instant,
    /// Headers and the exact bytes of the body.
    pub message: Message,
}

impl Received {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        self.message.json()
    }
}

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status, an empty body.
    Status(u16),
    /// This status with headers and a body.
    Full {
        /// Status code.
        status: u16,
        /// Headers, `content-length` aside.
        headers: Vec<(String, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// Nothing, with the connection kept open for as long as the peer keeps it.
    Hang,
    /// The connection is cut with a TCP reset.
    Reset,
    /// The answer, that much later.
    Delay(Duration, Box<Answer>),
    /// 500 for this share of the requests and 200 for the others. Which ones follows from the seed and the
    /// request's number alone.
    Flaky {
        /// Another seed, another selection.
        seed: u64,
        /// 0.0 = none fail, 1.0 = all do.
        fail_ratio: f64,
    },
}

impl Answer {
    /// This status with headers and an empty body.
    pub fn with_headers(status: u16, headers: &[(&str, &str)]) -> Answer {
        let headers = headers.iter().map(|(n, v)| (String::from(*n), String::from(*v))).collect();
        Answer::Full { status, headers, body: Vec::new() }
    }
}

type Choose = Box<dyn FnMut(&Received) -> Answer + Send>;

/// An HTTP endpoint on loopback that records every request and answers by its script. Stops when dropped.
pub struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Aborts the listener and every connection when dropped.
    serving: JoinSet<()>,
}

struct Shared {
    /// Std mutexes: held for a push or a clone, never across an await.
    requests: Mutex<Vec<Received>>,
    choose: Mutex<Choose>,
    flight: Mutex<Flight>,
    /// The number of requests recorded; whoever waits, waits on this.
    arrived: watch::Sender<usize>,
}

#[derive(Default)]
struct Flight {
    now: usize,
    most: usize,
}

impl Receiver {
    /// Starts on a free port and gives every request this answer.
    pub async fn always(answer: Answer) -> Receiver {
        Receiver::answering(move |_| answer.clone()).await
    }

    /// Starts on a free port and gives the answers in turn, the last one again and again.
    pub async fn scripted(answers: impl IntoIterator<Item = Answer>) -> Receiver {
        let mut left: VecDeque<Answer> = answers.into_iter().collect();
        assert!(!left.is_empty(), "a script has at least one answer");
        Receiver::answering(move |_| {
            let next = left.pop_front().expect("the last answer is never taken away");
            if left.is_empty() {
                left.push_back(next.clone());
            }
            next
        })
        .await
    }

    /// Starts on a free port and asks `choose` for every answer.
    pub async fn answering(choose: impl FnMut(&Received) -> Answer + Send + 'static) -> Receiver {
        Receiver::bind(SocketAddr::from(([127, 0, 0, 1], 0)), choose).await
    }

    /// Starts at this address; that of a stopped receiver can be taken again at once.
    pub async fn bind(
        addr: SocketAddr,
        choose: impl FnMut(&Received) -> Answer + Send + 'static,
    ) -> Receiver {
        let listener =
            TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("cannot listen on {addr}: {e}"));
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            choose: Mutex::new(Box::new(choose)),
            flight: Mutex::default(),
            arrived: watch::Sender::new(0),
        });
        let mut serving = JoinSet::new();
        let of_server = shared.clone();
        serving.spawn(http::serve(listener, move |stream| serve(stream, of_server.clone())));
        Receiver { addr, shared, serving }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as a webhook's `url`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// From now on asks `choose` for every answer.
    pub fn answer_with(&self, choose: impl FnMut(&Received) -> Answer + Send + 'static) {
        *self.shared.choose.lock().unwrap() = Box::new(choose);
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The largest number of requests that were being answered at the same time.
    pub fn most_at_once(&self) -> usize {
        self.shared.flight.lock().unwrap().most
    }

    /// Waits until `count` requests have arrived and gives all of them. Panics when the deadline passes first.
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Received> {
        self.wait_until(&format!("{count} requests"), deadline, |seen| seen.len() >= count).await
    }

    /// Waits until the requests so far satisfy `enough` and gives them; `what` names them in the failure. Panics
    /// when the deadline passes first.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        enough: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        let mut arrived = self.shared.arrived.subscribe();
        let waited = tokio::time::timeout(deadline, async {
            loop {
                arrived.borrow_and_update();
                let seen = self.requests();
                if enough(&seen) {
                    return seen;
                }
                arrived.changed().await.expect("the sender lives in self");
            }
        });
        waited.await.unwrap_or_else(|_| {
            let seen: Vec<String> = self
                .requests()
                .iter()
                .map(|r| {
                    format!("\n  {:?} ago: {} {} {}", r.at.elapsed(), r.method, r.path, r.message.text())
                })
                .collect();
            panic!("waited {deadline:?} for {what} and saw {}:{}", seen.len(), seen.concat())
        })
    }

    /// Stops listening and cuts every connection. The requests stay readable, and the address becomes free.
    pub async fn stop(mut self) -> Vec<Received> {
        self.serving.shutdown().await;
        self.requests()
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<Shared>) {
    while let Ok(Some(request)) = http::read_request(&mut stream).await {
        let _in_flight = InFlight::new(&shared);
        let received = record(&shared, request);
        let answer = (shared.choose.lock().unwrap())(&received);
        if !give(&mut stream, answer, received.number).await {
            return;
        }
    }
}

fn record(shared: &Shared, request: http::Request) -> Received {
    let mut requests = shared.requests.lock().unwrap();
    let received = Received {
        number: requests.len(),
        method: request.method,
        path: request.target,
        at: Instant::now(),
        message: request.message,
    };
    requests.push(received.clone());
    shared.arrived.send_replace(requests.len());
    received
}

/// Gives the answer; false when the connection is of no more use.
async fn give(stream: &mut BufReader<TcpStream>, answer: Answer, number: usize) -> bool {
    let mut answer = answer;
    loop {
        let (status, headers, body) = match answer {
            Answer::Status(status) => (status, Vec::new(), Vec::new()),
            Answer::Full { status, headers, body } => (status, headers, body),
            Answer::Flaky { seed, fail_ratio } => {
                (if fails(seed, number, fail_ratio) { 500 } else { 200 }, Vec::new(), Vec::new())
            }
            Answer::Delay(wait, then) => {
                tokio::time::sleep(wait).await;
                answer = *then;
                continue;
            }
            Answer::Hang => {
                // Ends when the peer gives up: the next read then finds the connection closed.
                return matches!(http::read_request(stream).await, Ok(Some(_)));
            }
            Answer::Reset => {
                let _ = stream.get_ref().set_zero_linger();
                return false;
            }
        };
        return http::write_answer(stream, status, &headers, &body).await.is_ok();
    }
}

/// One step of the splitmix64 generator, keyed by the request's number.
fn fails(seed: u64, number: usize, fail_ratio: f64) -> bool {
    let mut z = seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let share = (z >> 11) as f64 / (1u64 << 53) as f64;
    share < fail_ratio
}

struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut flight = shared.flight.lock().unwrap();
        flight.now += 1;
        flight.most = flight.most.max(flight.now);
        InFlight(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.flight.lock().unwrap().now -= 1;
    }
}
