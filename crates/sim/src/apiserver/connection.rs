//! A connection without faults: kube's client, answered at once.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use tokio::time::{Instant, sleep_until};

use super::watch::{Cursor, Told};
use super::{Answer, ApiServer};

/// What the real one takes if the client does not say how long a watch is to be.
const DEFAULT_WATCH: Duration = Duration::from_secs(30 * 60);

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

impl ApiServer {
    /// A client of its own, to be made and used in a tokio runtime.
    pub fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let request = whole(request).await?;
                Ok::<_, kube::Error>(response(server.serve(&request)))
            }
        });
        kube::Client::new(service, "default")
    }
}

/// The request with all of its body.
pub async fn whole(request: Request<Body>) -> kube::Result<Request<Bytes>> {
    let (parts, body) = request.into_parts();
    Ok(Request::from_parts(parts, body.collect_bytes().await?))
}

/// The answer as it is sent.
pub fn response(answer: Answer) -> Response<AnswerBody> {
    match answer {
        Answer::Done { code, body } => json_response(code, Full::new(body).boxed_unsync()),
        Answer::Watch(cursor) => {
            let lines = lines(cursor).map(|line| Ok(http_body::Frame::data(line)));
            json_response(200, StreamBody::new(lines).boxed_unsync())
        }
    }
}

fn json_response(code: u16, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The lines of a watch, as they come; at its end a bookmark, if the client wants them.
fn lines(cursor: Cursor) -> impl Stream<Item = Bytes> + Send {
    let end = Instant::now() + cursor.timeout.unwrap_or(DEFAULT_WATCH);
    stream::unfold(Some(cursor), move |cursor| async move {
        let mut cursor = cursor?;
        loop {
            if let Some(event) = cursor.try_next() {
                let rest = (event.told != Told::Expired).then_some(cursor);
                return Some((event.line, rest));
            }
            let is_over = tokio::select! {
                biased;
                () = cursor.changed() => false,
                () = sleep_until(end) => true,
            };
            if is_over {
                let last = cursor.allow_bookmarks.then(|| cursor.bookmark().line);
                return last.map(|line| (line, None));
            }
        }
    })
}
