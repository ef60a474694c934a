//! Connections that are refused, reset and closed.

use super::*;

#[tokio::test]
async fn r23_a_refused_connection_is_not_reached() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let handler = UrlHandler::new(UrlOptions::new(format!("http://{address}/"))).unwrap();
    assert_not_reached(invoke(&handler).await, "refused");
    assert!(handler.probe().await.unwrap_err().to_string().contains("refused"));
}

#[tokio::test]
async fn r23_a_name_that_does_not_resolve_is_not_reached() {
    let handler = UrlHandler::new(UrlOptions::new("http://no-such-host.invalid/")).unwrap();
    assert_not_reached(invoke(&handler).await, "cannot connect");
}

#[tokio::test]
async fn r23_a_failed_tls_handshake_is_not_reached() {
    let server = Server::answering("this is no TLS").await;
    let url = format!("https://{}/", server.address);
    // Without root certificates on the host https is refused when the handler is made.
    match UrlHandler::new(UrlOptions::new(url)) {
        Ok(handler) => {
            let refusing = Server::start(|_, stream| async move { drop(stream) }).await;
            let _ = assert_not_reached(
                invoke_within(&handler, Duration::from_secs(2), EVENT.to_vec()).await,
                &server.address.to_string(),
            );
            let handler = UrlHandler::new(UrlOptions::new(format!("https://{}/", refusing.address))).unwrap();
            assert_not_reached(invoke(&handler).await, "cannot connect");
        }
        Err(error) => assert!(matches!(error, UrlError::Certificates(_)), "{error}"),
    }
}

#[tokio::test]
async fn r23_a_reset_before_the_request_was_wholly_written_is_not_reached() {
    let server = Server::start(|_, mut stream| async move {
        // Larger than the socket buffers: it cannot have been written when this closes.
        let mut some = [0; 1000];
        stream.read_exact(&mut some).await.unwrap();
        reset(stream);
    })
    .await;
    let handler = server.handler("/", |_| {});
    let event = vec![b' '; 40 << 20];
    assert_not_reached(
        invoke_within(&handler, Duration::from_secs(30), event).await,
        "before the request was sent",
    );
}

#[tokio::test]
async fn a_reset_of_an_idle_kept_connection_is_tried_once_on_a_fresh_one() {
    let server = Server::start(|number, mut stream| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(http("200 OK", "", "{}").as_bytes()).await.unwrap();
        while read_request(&mut stream).await.is_some() {
            if number == 0 {
                return reset(stream);
            }
            stream.write_all(http("200 OK", "", "{}").as_bytes()).await.unwrap();
        }
    })
    .await;
    let handler = server.handler("/", |_| {});
    invoke(&handler).await.unwrap();
    invoke(&handler).await.unwrap();
    assert_eq!(server.connections(), 2);
    invoke(&handler).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_record_that_kills_the_server_is_a_function_error_even_on_a_kept_connection() {
    let server = Server::start(|_, mut stream| async move {
        while let Some((_, body)) = read_request(&mut stream).await {
            if body != EVENT {
                return reset(stream);
            }
            stream.write_all(http("200 OK", "", "{}").as_bytes()).await.unwrap();
        }
    })
    .await;
    let handler = server.handler("/", |_| {});
    invoke(&handler).await.unwrap();
    let poison = invoke_within(&handler, Duration::from_secs(30), b"poison".to_vec()).await;
    assert_function_error(poison, "broke before the answer");
    assert_eq!(server.connections(), 2, "the free try went over a fresh connection");
}

#[tokio::test]
async fn a_reset_or_close_after_the_whole_request_on_a_fresh_connection_is_a_function_error() {
    for with_reset in [true, false] {
        let server = Server::start(move |_, mut stream| async move {
            read_request(&mut stream).await.unwrap();
            if with_reset {
                reset(stream);
            }
        })
        .await;
        assert_function_error(server.invoke().await, "broke before the answer");
        assert_eq!(server.connections(), 1, "no free try");
    }
}

#[tokio::test]
async fn an_invocation_that_is_given_up_closes_its_connection() {
    let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            sender.send("read").unwrap();
            assert!(read_request(&mut stream).await.is_none());
            sender.send("closed").unwrap();
        }
    })
    .await;
    let handler = server.handler("/", |_| {});
    let call = tokio::spawn(async move { invoke(&handler).await });
    assert_eq!(closed.recv().await, Some("read"));
    call.abort();
    assert_eq!(closed.recv().await, Some("closed"));
}
