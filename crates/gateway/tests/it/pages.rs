//! The embedded pages: types, encodings, revalidation, and the headers that keep other sites out.

use crate::gateway::Gateway;
use crate::http::Request;

#[tokio::test]
async fn pages_come_packed_and_are_revalidated() {
    let gateway = Gateway::start().await;
    let plain = Request::get("/").send(gateway.address).await;
    assert_eq!((plain.status, plain.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(plain.text().contains("<title>Cairn</title>"));
    let packed = Request::get("/").header("Accept-Encoding", "gzip, deflate, br").send(gateway.address).await;
    assert!(packed.header("content-encoding").is_some());
    assert!(packed.body.len() < plain.body.len());
    let tag = packed.header("etag").unwrap();
    let again = Request::get("/").header("Accept-Encoding", "gzip, deflate, br").header("If-None-Match", tag);
    let again = again.send(gateway.address).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_ne!(plain.header("etag"), packed.header("etag"), "encodings are different entities");
}

#[tokio::test]
async fn a_page_may_load_from_its_own_server_only() {
    let gateway = Gateway::start().await;
    for path in ["/", "/health", "/v1/nothing"] {
        let answer = Request::get(path).send(gateway.address).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        for word in policy.split([' ', ';']) {
            let own = !word.contains("://") && !word.contains('*') && !word.starts_with("'unsafe");
            assert!(own, "`{word}` lets a page reach others");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn the_pages_own_paths_show_the_page_and_missing_files_do_not() {
    let gateway = Gateway::start().await;
    let chat = Request::get("/chat").send(gateway.address).await;
    assert_eq!((chat.status, chat.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/nothing.js", "/../Cargo.toml", "/v1/chat", "/net/nothing"] {
        let missing = Request::get(path).send(gateway.address).await;
        assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/json")), "{path}");
    }
    let posted = Request::new("POST", "/chat").send(gateway.address).await;
    assert_eq!(posted.status, 404);
}

#[tokio::test]
async fn every_file_that_the_page_names_is_embedded() {
    let gateway = Gateway::start().await;
    let page = Request::get("/").send(gateway.address).await.text();
    let names: Vec<&str> = page.split('"').filter(|part| part.starts_with('/') && part.contains('.')).collect();
    assert!(!names.is_empty(), "the page names no files");
    for name in names {
        assert_eq!(Request::get(name).send(gateway.address).await.status, 200, "{name}");
    }
}
