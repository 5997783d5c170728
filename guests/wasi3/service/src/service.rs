//! A service of WASI 0.3, which does what the path of a request says: greets, echoes in two ways, and misbehaves.

use std::future::poll_fn;
use std::task::Poll;

use wasip3::cli::environment::get_environment;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader};
use wasip3::{spawn_local, wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

const DAY: u64 = 86_400_000_000_000;
const HALF_SECOND: u64 = 500_000_000;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/" => Ok(text(greeting())),
            "/echo" => Ok(echoed(request)),
            "/pass" => Ok(passed(request)),
            "/trailers" => Ok(with_trailers()),
            "/fetch" => fetched(query).await,
            "/half" => Ok(half()),
            "/drop" => Err(ErrorCode::InternalError(Some("no answer today".to_owned()))),
            "/sleep" => {
                wait_for(DAY).await;
                Ok(text("awake again\n".to_owned()))
            }
            "/tasks" => {
                // Each waits by itself, and all of them at the same time.
                let mut waits: Vec<_> = (0..10).map(|_| Box::pin(wait_for(HALF_SECOND))).collect();
                poll_fn(|context| {
                    waits.retain_mut(|wait| wait.as_mut().poll(context).is_pending());
                    if waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                Ok(text("all done\n".to_owned()))
            }
            "/handles" => hoard(),
            "/spin" => spin(),
            "/hog" => hog(),
            "/trap" => panic!("as it was asked to"),
            _ => Ok(text("there is no such path here\n".to_owned())),
        }
    }
}

fn greeting() -> String {
    let variables = get_environment();
    let variable =
        |name: &str| variables.iter().find(|(known, _)| known == name).map_or("?", |(_, value)| value);
    format!("hello from {} on {}\n", variable("DUNLIN_WORKLOAD"), variable("DUNLIN_NODE"))
}

type Ending = FutureReader<Result<Option<Trailers>, ErrorCode>>;

fn respond(body: StreamReader<u8>, ending: Ending) -> Response {
    let (response, _sent) = Response::new(Fields::new(), Some(body), ending);
    response
}

/// Answers with a text that is written while the answer is on its way.
fn text(text: String) -> Response {
    let (mut writer, body) = wit_stream::new();
    let (ended, ending) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        let _nobody_reads = writer.write_all(text.into_bytes()).await;
        drop(writer);
        let _nobody_reads = ended.write(Ok(None)).await;
    });
    respond(body, ending)
}

/// Sends back what comes, piece by piece, through this guest's own memory.
fn echoed(request: Request) -> Response {
    let (_result, result) = wit_future::new(|| Ok(()));
    let (mut incoming, _trailers) = Request::consume_body(request, result);
    let (mut writer, body) = wit_stream::new();
    let (ended, ending) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        loop {
            let (status, piece) = incoming.read(Vec::with_capacity(64 << 10)).await;
            if !writer.write_all(piece).await.is_empty() {
                return;
            }
            if status == wasip3::wit_bindgen::StreamResult::Dropped {
                break;
            }
        }
        drop(writer);
        let _nobody_reads = ended.write(Ok(None)).await;
    });
    respond(body, ending)
}

/// Sends back what comes without looking at it.
fn passed(request: Request) -> Response {
    let (_result, result) = wit_future::new(|| Ok(()));
    let (incoming, trailers) = Request::consume_body(request, result);
    respond(incoming, trailers)
}

fn with_trailers() -> Response {
    let (mut writer, body) = wit_stream::new();
    let (ended, ending) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        let _nobody_reads = writer.write_all(b"a body\n".to_vec()).await;
        drop(writer);
        let trailers = Fields::from_list(&[("checksum".to_owned(), b"seven".to_vec())]);
        let _nobody_reads = ended.write(Ok(trailers.ok())).await;
    });
    respond(body, ending)
}

/// Begins a body and perishes before its end, if somebody reads it.
fn half() -> Response {
    let (mut writer, body) = wit_stream::new();
    let (_ended, ending) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        for _ in 0..64 {
            if !writer.write_all(vec![b'x'; 64 << 10]).await.is_empty() {
                // Whoever reads no more should end this.
                wait_for(DAY).await;
            }
        }
        panic!("half-way, as it was asked to");
    });
    respond(body, ending)
}

/// Answers with what `http://AUTHORITY/` says.
async fn fetched(authority: &str) -> Result<Response, ErrorCode> {
    let (_ended, ending) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, ending, None);
    let is_set = request.set_method(&Method::Get).is_ok()
        && request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some("/")).is_ok();
    if !is_set {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    match client::send(request).await {
        Ok(response) => {
            let (_result, result) = wit_future::new(|| Ok(()));
            let (body, trailers) = Response::consume_body(response, result);
            Ok(respond(body, trailers))
        }
        Err(code) => Ok(text(format!("not fetched: {code:?}\n"))),
    }
}

fn hoard() -> ! {
    let mut streams = Vec::new();
    loop {
        streams.push(wit_stream::new::<u8>());
    }
}

fn spin() -> ! {
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}

fn hog() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
