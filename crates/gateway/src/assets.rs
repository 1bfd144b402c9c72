//! The built pages, embedded: lookup by path, encodings that were packed at build time, and revalidation by content.
//!
//! Names carry no hash, so every answer says `no-cache` with an entity tag: a browser asks again and mostly hears 304.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire::Hash;

use crate::error::ApiError;

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The pages' first file; every path without an extension shows it, because the page routes by itself.
const INDEX: &str = "index.html";

/// How a packed file's name ends, and the encoding it is in; the first that the client takes is sent.
const ENCODINGS: [(&str, &str); 2] = [(".br", "br"), (".gz", "gzip")];

struct Asset {
    bytes: &'static [u8],
    tag: String,
}

static ASSETS: LazyLock<BTreeMap<&'static str, Asset>> = LazyLock::new(|| {
    let asset = |bytes| Asset { bytes, tag: format!("\"{}\"", Hash::of(bytes).short()) };
    FILES.iter().map(|(name, bytes)| (*name, asset(bytes))).collect()
});

/// Answers a path that is no API route with a page or one of its files.
pub(crate) fn serve(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return ApiError::unknown_route(method, path).into_response();
    }
    let wanted = path.trim_start_matches('/');
    let last = wanted.rsplit('/').next().unwrap_or_default();
    let api = ["v1/", "net/"].iter().any(|prefix| wanted.starts_with(prefix));
    let name = if last.contains('.') || api { wanted } else { INDEX };
    match ASSETS.get(name) {
        Some(plain) => file(name, plain, headers),
        None if name == INDEX => ApiError::no_pages().into_response(),
        None => ApiError::unknown_route(method, path).into_response(),
    }
}

fn file(name: &str, plain: &Asset, headers: &HeaderMap) -> Response {
    let packed = ENCODINGS.iter().filter(|(_, encoding)| accepts(headers, encoding)).find_map(|(ending, encoding)| {
        ASSETS.get(format!("{name}{ending}").as_str()).map(|asset| (asset, Some(*encoding)))
    });
    let (asset, encoding) = packed.unwrap_or((plain, None));
    let mut response = Response::builder()
        .header(header::ETAG, &asset.tag)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::VARY, "accept-encoding");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag)) {
        return finish(response.status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    if let Some(encoding) = encoding {
        response = response.header(header::CONTENT_ENCODING, encoding);
    }
    finish(response.header(header::CONTENT_TYPE, media_type(name)), Body::from(asset.bytes))
}

fn finish(response: axum::http::response::Builder, body: Body) -> Response {
    response.body(body).expect("the headers are constants and hexadecimal digits")
}

/// Whether `Accept-Encoding` names the encoding without a quality of zero.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
            let refused = parts.any(|part| part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
            named && !refused
        })
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Bytes of a first load, packed where the build packed: what a browser fetches to show the page.
#[cfg(test)]
fn first_load_bytes() -> usize {
    let packed = |name: &str| ENCODINGS.iter().any(|(ending, _)| name.ends_with(ending));
    let sent = |name: &str, plain: &Asset| {
        let sizes = ENCODINGS.iter().filter_map(|(ending, _)| ASSETS.get(format!("{name}{ending}").as_str()));
        sizes.map(|asset| asset.bytes.len()).min().unwrap_or(plain.bytes.len())
    };
    ASSETS.iter().filter(|(name, _)| !packed(name)).map(|(name, asset)| sent(name, asset)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_small() {
        let bytes = first_load_bytes();
        assert!(bytes < 300_000, "a first load is {bytes} bytes, limit 300,000");
    }

    #[test]
    fn encodings_are_negotiated() {
        let headers = |value: &str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
        assert!(accepts(&headers("gzip, deflate, br"), "gzip"));
        assert!(accepts(&headers("br;q=0.5, GZIP;q=0.1"), "gzip"));
        assert!(!accepts(&headers("gzip;q=0"), "gzip"));
        assert!(!accepts(&headers("deflate"), "gzip"));
        assert!(!accepts(&HeaderMap::new(), "gzip"));
    }
}
