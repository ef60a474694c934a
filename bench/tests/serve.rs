//! `shardmill-bench serve`, which the benchmarks start for themselves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pages_are_served_over_http_and_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = folder.path().join("certificate.pem");
    for (scheme, options) in [("http", Vec::new()), ("https", vec!["--tls".into(), certificate.clone()])] {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_shardmill-bench"));
        let mut child = serve.arg("serve").args(options).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        let _process = Process(child);
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url).expect("it prints its address");
        let address = url.trim().strip_prefix(&format!("{scheme}://")).expect(&url);
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        socket.write_all(b"neither a request nor a handshake\r\n\r\n").expect("it takes bytes");
        socket.shutdown(Shutdown::Write).expect("it ends");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("it ends the connection");
        // A handshake that fails is answered by an alert, record type 21.
        assert_eq!(answer.first() == Some(&21), scheme == "https", "{answer:?}");
    }
}
