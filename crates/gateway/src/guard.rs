//! What every request passes: the host and origin checks on the way in, the security headers on the way out.
//!
//! The server has no login, so what protects it from other sites' pages is that they cannot reach it under a name of
//! theirs (DNS rebinding: the `Host` check) and cannot send requests from their origin (the `Origin` check).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::server::App;

/// Sent with every answer. The policy lets a page load from its own server only, and nobody frame it.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// How a page's request relates to the site that it goes to, as the browser says.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Runs a request if it may pass, and adds the headers to the answer.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.uri(), request.headers(), &app.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str)).ok_or_else(ApiError::foreign_host)?;
    if !host_is_ours(host, allowed) {
        return Err(ApiError::foreign_host());
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    // Browsers say so even where they leave the origin out.
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return Err(ApiError::foreign_origin());
    }
    match headers.get(header::ORIGIN) {
        Some(origin) if !same_origin(origin, host) => Err(ApiError::foreign_origin()),
        _ => Ok(()),
    }
}

/// An address cannot be rebound, only a name can; so every address passes, and of the names `localhost` and the allowed.
fn host_is_ours(host: &str, allowed: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn same_origin(origin: &HeaderValue, host: &str) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(method: &Method, headers: &[(HeaderName, &str)]) -> Result<(), ApiError> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        check(method, &Uri::from_static("/v1/completions"), &headers, &["cairn.example".to_owned()])
    }

    #[test]
    fn only_addresses_and_known_names_are_hosts() {
        for host in ["127.0.0.1:7070", "localhost:7070", "LOCALHOST", "[::1]:7070", "10.0.0.7", "cairn.example:80"] {
            assert_eq!(outcome(&Method::GET, &[(header::HOST, host)]), Ok(()), "{host}");
        }
        for host in ["evil.example:7070", "127.0.0.1.evil.example", "localhost.evil.example", "", "@", "a b"] {
            assert_eq!(outcome(&Method::GET, &[(header::HOST, host)]), Err(ApiError::foreign_host()), "{host}");
        }
        assert_eq!(outcome(&Method::GET, &[]), Err(ApiError::foreign_host()));
    }

    #[test]
    fn other_origins_may_not_post() {
        let with = |origin| [(header::HOST, "localhost:7070"), (header::ORIGIN, origin)];
        assert_eq!(outcome(&Method::POST, &with("http://localhost:7070")), Ok(()));
        for origin in ["http://localhost:3000", "https://evil.example", "null", "http://127.0.0.1:7070"] {
            assert_eq!(outcome(&Method::POST, &with(origin)), Err(ApiError::foreign_origin()), "{origin}");
        }
        assert_eq!(outcome(&Method::GET, &with("https://evil.example")), Ok(()));
        let from = |site| [(header::HOST, "localhost:7070"), (SEC_FETCH_SITE, site)];
        for site in ["cross-site", "same-site"] {
            assert_eq!(outcome(&Method::POST, &from(site)), Err(ApiError::foreign_origin()), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(outcome(&Method::POST, &from(site)), Ok(()), "{site}");
        }
    }
}
