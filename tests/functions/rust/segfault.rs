//! A plain HTTP server that handles Lambda events and dies of a segmentation fault on the record whose data is `segv`.
//!
//! `segfaulting-server ADDRESS FILE`: notes the data of every invocation in FILE before it does anything.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Result, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(file)) = (args.next(), args.next()) else {
        eprintln!("usage: segfaulting-server ADDRESS FILE");
        std::process::exit(2);
    };
    let listener = TcpListener::bind(address)?;
    for connection in listener.incoming() {
        // One after the other: a client that goes away must not end the server.
        let _ = serve(connection?, &file);
    }
    Ok(())
}

fn serve(connection: TcpStream, file: &str) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut connection = connection;
    while let Some(body) = read_request(&mut reader)? {
        let event: Value = serde_json::from_slice(&body)?;
        let records = event["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
        let data: Vec<String> = records.iter().map(data).collect();
        let mut line = data.join(" ");
        line.push('\n');
        OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())?;
        while data.iter().any(|data| data == "segv") {
            // The first one only removes the handler by which Rust detects stack overflows.
            let pid = std::process::id().to_string();
            Command::new("sh").args(["-c", "kill -SEGV $0", &pid]).status()?;
        }
        connection
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")?;
    }
    Ok(())
}

fn data(record: &Value) -> String {
    let encoded = record["kinesis"]["data"].as_str().unwrap_or_default();
    let decoded = base64_simd::STANDARD.decode_to_vec(encoded).unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The body of the next request; `None` if the client has closed the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}
