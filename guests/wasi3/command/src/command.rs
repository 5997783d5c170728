//! A program of WASI 0.3, which does what the variable `CASE` or its argument says: greets, copies its input, computes
//! random bytes, and misbehaves.

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::random::random::get_random_bytes;
use wasip3::wit_bindgen::{StreamReader, StreamResult};
use wasip3::{filesystem, sockets, spawn_local, wit_stream};

const DAY: u64 = 86_400_000_000_000;

// ANCHOR: program
struct Program;

wasip3::cli::command::export!(Program);

impl wasip3::exports::cli::run::Guest for Program {
    async fn run() -> Result<(), ()> {
        done(&wanted()).await
    }
}

async fn say(text: &str) -> Result<(), ()> {
    let (mut writer, lines) = wit_stream::new();
    let text = text.as_bytes().to_vec();
    spawn_local(async move {
        let _nobody_reads = writer.write_all(text).await;
    });
    stdout::write_via_stream(lines).await.map_err(|_| ())
}
// ANCHOR_END: program

/// Returns what it is to do.
fn wanted() -> String {
    let variables = environment::get_environment();
    let case = variables.into_iter().find(|(name, _)| name == "CASE").map(|(_, value)| value);
    case.or_else(|| environment::get_arguments().into_iter().nth(1)).unwrap_or_default()
}

async fn done(case: &str) -> Result<(), ()> {
    match case {
        "cat" => copy(stdin::read_via_stream().0).await,
        "complain" => complain().await,
        "exit" => {
            exit::exit_with_code(7);
            Ok(())
        }
        "random" => say(&format!("{} bytes\n", get_random_bytes(u64::MAX).len())).await,
        "reach" => reach().await,
        "sleep" => {
            wait_for(DAY).await;
            Ok(())
        }
        "spin" => spin(),
        "hog" => hog(),
        "yield" => loop {
            wait_for(0).await;
        },
        "trap" => panic!("as it was asked to"),
        _ => say("hello from WASI 0.3\n").await,
    }
}

async fn complain() -> Result<(), ()> {
    let (mut writer, lines) = wit_stream::new();
    let written = stderr::write_via_stream(lines);
    let _nobody_reads = writer.write_all(b"this is wrong\n".to_vec()).await;
    drop(writer);
    written.await.map_err(|_| ())?;
    Err(())
}

async fn copy(mut input: StreamReader<u8>) -> Result<(), ()> {
    let (mut writer, output) = wit_stream::new();
    let written = stdout::write_via_stream(output);
    loop {
        let (status, piece) = input.read(Vec::with_capacity(64 << 10)).await;
        if !writer.write_all(piece).await.is_empty() {
            return Err(());
        }
        if status == StreamResult::Dropped {
            break;
        }
    }
    drop(writer);
    written.await.map_err(|_| ())
}

/// Says what it can reach of files and of the network: nothing, if all is well.
async fn reach() -> Result<(), ()> {
    let folders = filesystem::preopens::get_directories().len();
    let name = sockets::ip_name_lookup::resolve_addresses("localhost".to_owned()).await.is_ok();
    let tcp = sockets::types::TcpSocket::create(sockets::types::IpAddressFamily::Ipv4).is_ok();
    let udp = sockets::types::UdpSocket::create(sockets::types::IpAddressFamily::Ipv4).is_ok();
    say(&format!("folders {folders}, names {name}, tcp {tcp}, udp {udp}\n")).await
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
