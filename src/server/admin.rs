//! Probes and metrics over HTTP, on the frame's runtime: no client's command delays them, and they delay none.
//!
//! `/livez` answers while the process can; `/readyz` says whether this server can be sent clients, and that
//! the next one may be restarted; `/metrics` are INFO's numbers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::metrics;
use super::ports::Ports;
use crate::cluster::machine::Machine;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::propagation::State;

/// Connections at a time; whoever comes beyond that is hung up on.
const CONNECTIONS: usize = 32;
/// How long a connection may take, its one request and reply included.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long whoever connects may take to say what it wants: others wait for its place.
const REQUEST: Duration = Duration::from_secs(2);
/// After an error of the listener it is tried again so often.
const AGAIN: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listeners of `admin-port`.
pub fn ports(shared: &Arc<Shared>) -> Ports {
    let shared = Arc::clone(shared);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    Ports::new(
        wanted,
        Arc::new(move |listener| serve(listener, Arc::clone(&shared), Arc::clone(&places))),
    )
}

fn wanted(settings: &Settings) -> (u16, Vec<String>) {
    let addresses = settings.admin_bind.to_str();
    let addresses = addresses.split_whitespace().map(str::to_owned);
    (settings.admin_port, addresses.collect())
}

fn serve(listener: TcpListener, shared: Arc<Shared>, places: Arc<Semaphore>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                // Whoever hangs up or is too slow gets no answer.
                let _ = tokio::time::timeout(PATIENCE, answer_one(socket, shared)).await;
                drop(place);
            });
        }
    })
}

async fn answer_one(socket: TcpStream, shared: Arc<Shared>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&request, shared).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .await
}

async fn answer(request: &Request<Incoming>, shared: Arc<Shared>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = reply(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "GET or HEAD".to_owned(),
        );
        refused
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match hindrance(&shared) {
            None => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        // It looks at every client, so that not even the frame waits for it.
        "/metrics" => match tokio::task::spawn_blocking(move || metrics::text(&shared)).await {
            Ok(text) => reply(StatusCode::OK, PROMETHEUS, text),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
        },
        _ => reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "/livez, /readyz, /metrics\n".to_owned(),
        ),
    }
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// Why this server is not to be sent clients, nor another one restarted; `None` when nothing speaks
/// against it.
fn hindrance(shared: &Shared) -> Option<String> {
    if shared.durability.loading.is_blocking() {
        return Some("the data set is being loaded".to_owned());
    }
    let upstream = &shared.replication.upstream;
    if upstream.follows() && !upstream.is_up() {
        return Some("the link to the primary is down".to_owned());
    }
    let cluster = shared.cluster.as_ref()?;
    let in_sync = shared.replication.replicas();
    let in_sync = in_sync
        .iter()
        .any(|replica| replica.state() == State::Online);
    // Nothing is locked under the machine's lock.
    of_cluster(&cluster.machine(), in_sync)
}

/// What in the cluster speaks against it. `in_sync`: some replica has what this server has.
fn of_cluster(machine: &Machine, in_sync: bool) -> Option<String> {
    if machine.fails() {
        return Some("the cluster does not work, as seen from here".to_owned());
    }
    let view = machine.view();
    let me = view.me();
    let alone = me.is_primary() && view.working_replicas(me) > 0 && !in_sync;
    alone.then(|| "no replica is in sync".to_owned())
}
