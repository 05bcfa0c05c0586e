//! Much output, and much of it at once.

use std::{fs, time::Instant};

use bai_kernel_lib::{
    config::RuntimeType,
    protocol::{Event, Stream},
};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, Frame, Runner, batch};

/// Reads a run to its end; its standard output's digest and length.
fn digest(agent: &mut Agent, run_id: &str) -> (Vec<u8>, u64, i32) {
    let (mut hash, mut length) = (Sha256::new(), 0);
    loop {
        match agent.next().unwrap() {
            Frame::Output { run_id: id, stream: Stream::Stdout, data, .. } if id == run_id => {
                hash.update(&data);
                length += data.len() as u64;
            }
            Frame::Event { event: Event::Finished { run_id: id, exit_code, .. }, .. } if id == run_id => {
                return (hash.finalize().to_vec(), length, exit_code);
            }
            _ => {}
        }
    }
}

/// Resident memory of a process in bytes: the most it ever had.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn fifty_megabytes_arrive_whole() {
    let runner = Runner::start(RuntimeType::App);
    let mut data = vec![0u8; 50 << 20];
    let mut state = 1u32;
    for byte in &mut data {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    fs::write(runner.config.work_dir.join("data"), &data).unwrap();
    let mut agent = runner.connect();
    agent.submit("r", batch(None, None, Some("cat data")));
    let start = Instant::now();
    let (hash, length, exit_code) = digest(&mut agent, "r");
    println!("{:.0} MB/s with hashing", length as f64 / 1e6 / start.elapsed().as_secs_f64());
    assert_eq!((length, exit_code), (data.len() as u64, 0));
    assert_eq!(hash, Sha256::digest(&data).to_vec());
}

#[test]
fn endless_lines_need_little_memory() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    agent.submit("r", batch(None, None, Some("head -c 200000000 /dev/zero")));
    let start = Instant::now();
    let mut length = 0;
    loop {
        match agent.next().unwrap() {
            Frame::Output { data, .. } => length += data.len(),
            Frame::Event { event: Event::Finished { .. }, .. } => break,
            _ => {}
        }
    }
    println!("{:.0} MB/s", length as f64 / 1e6 / start.elapsed().as_secs_f64());
    assert_eq!(length, 200_000_000);
    let peak = peak_memory(runner.pid());
    println!("peak memory {} KiB", peak / 1024);
    assert!(peak < 40 << 20, "{peak}");
    let kept = fs::metadata(runner.config.log_file.as_ref().unwrap()).unwrap().len();
    assert!(kept <= runner.config.log_limit / 2, "{kept}");
}

#[test]
fn without_acknowledgements_a_program_waits_and_can_be_interrupted() {
    let runner = Runner::start_with(RuntimeType::App, |config| config.replay_bytes = 1 << 20);
    let mut agent = runner.connect();
    agent.acknowledges = false;
    agent.submit("r", batch(None, None, Some("head -c 100000000 /dev/zero; echo end >&2; sleep 1000")));
    let mut length = 0;
    // What is counted includes more than the data.
    while length < 900_000 {
        if let Frame::Output { data, .. } = agent.next().unwrap() {
            length += data.len();
        }
    }
    assert!(peak_memory(runner.pid()) < 20 << 20);
    agent.interrupt();
    agent.acknowledges = true;
    agent.acknowledge(agent.last_seq);
    assert_eq!(agent.finish("r").exit_code, 130);
}
