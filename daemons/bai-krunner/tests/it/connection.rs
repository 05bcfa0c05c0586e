//! The connection: secrecy, replacement, replay.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use bai_kernel_lib::{
    config::RuntimeType,
    protocol::{Command, Event, ReplyBody},
};

use crate::harness::{Agent, Frame, Runner, TOKEN, batch, query, until};

#[test]
fn ready_is_the_first_frame_and_quick() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let Some(Frame::Event { seq: 1, event: Event::Ready { pid, .. } }) = agent.next() else {
        panic!("not ready")
    };
    assert_eq!(pid, runner.pid());
}

#[test]
fn a_wrong_token_or_version_is_turned_away() {
    let runner = Runner::start(RuntimeType::App);
    let _first = runner.connect();
    for token in ["", "wrong", "a token of the tesu", "a token of the test "] {
        assert!(Agent::connect(&runner.config.socket, token, None).is_none(), "{token}");
    }
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\0", b"\x02\0\0\0\x01{", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(&runner.config.socket).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(std::io::Read::read(&mut stream, &mut [0; 16]).unwrap_or(0), 0);
    }
    let mut good = runner.connect();
    assert_eq!(good.batch(None, None, Some("echo ok")).stdout, "ok\n");
}

#[test]
fn the_socket_is_private() {
    let runner = Runner::start(RuntimeType::App);
    runner.connect();
    let mode = std::fs::metadata(&runner.config.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn silent_strangers_do_not_keep_the_agent_out() {
    let runner = Runner::start(RuntimeType::App);
    runner.connect();
    let _strangers: Vec<_> = (0..6).map(|_| UnixStream::connect(&runner.config.socket).unwrap()).collect();
    let mut agent = runner.connect();
    assert!(agent.status().active.is_none());
}

#[test]
fn a_new_connection_replaces_the_old_one() {
    let runner = Runner::start(RuntimeType::App);
    let mut old = runner.connect();
    assert!(old.status().active.is_none());
    let mut new = runner.connect();
    assert!(new.status().active.is_none());
    while old.next().is_some() {}
}

#[test]
fn nothing_is_lost_or_repeated_when_the_connection_breaks() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    agent.submit("r", batch(None, None, Some("i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done")));
    let mut text = Vec::new();
    let mut drops = 0;
    'run: loop {
        for _ in 0..20 {
            match agent.next().unwrap() {
                Frame::Output { data, .. } => text.extend(data),
                Frame::Event { event: Event::Finished { .. }, .. } => break 'run,
                _ => {}
            }
        }
        // The next one says how far this one came, or leaves it to the acknowledgements.
        let resume = (agent.welcome.boot.clone(), agent.last_seq);
        drop(agent);
        agent = Agent::connect(&runner.config.socket, TOKEN, Some((&resume.0, resume.1))).unwrap();
        assert_eq!(agent.welcome.first_seq, resume.1 + 1);
        drops += 1;
    }
    assert!(drops > 0);
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..30000));
}

#[test]
fn an_agent_that_was_killed_finds_everything_again() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    agent.acknowledges = false;
    agent.query("kept = 'state'");
    agent.submit_query("r", "import time\nprint('before')\ntime.sleep(0.3)\nprint('after')");
    agent.wait_for_output("r", "before");
    drop(agent);
    // It remembers nothing: all that was not acknowledged comes again, beginning with `ready`.
    let mut agent = runner.connect();
    assert_eq!(agent.welcome.first_seq, 1);
    assert!(matches!(agent.next(), Some(Frame::Event { event: Event::Ready { .. }, .. })));
    let again = Command::Execute { run_id: "r".into(), work: query("print('twice')") };
    assert_eq!(agent.ask(again), ReplyBody::Accepted { duplicate: true });
    assert_eq!(agent.finish("r").stdout, "before\nafter\n");
    assert_eq!(agent.query("kept").stdout, "'state'\n");
}

#[test]
fn a_number_of_another_boot_is_not_an_acknowledgement() {
    let runner = Runner::start(RuntimeType::App);
    let agent = runner.connect();
    let boot = agent.welcome.boot.clone();
    drop(agent);
    let other = Agent::connect(&runner.config.socket, TOKEN, Some(("another", 1))).unwrap();
    assert_eq!(other.welcome.boot, boot);
    let again = Agent::connect(&runner.config.socket, TOKEN, Some((&boot, 1))).unwrap();
    assert_eq!(again.welcome.first_seq, 2);
}

#[test]
fn effects_are_not_repeated_for_a_repeated_request() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    agent.submit_query("r", "a = input()\nb = input()\nprint(a, b)");
    let input = |text: &str| Command::Input { run_id: Some("r".into()), text: text.into() };
    until(|| agent.status().waiting_input.then_some(()));
    for _ in 0..2 {
        agent.send_as(5, input("one"));
        assert_eq!(agent.reply(5), ReplyBody::Done);
        until(|| agent.status().waiting_input.then_some(()));
    }
    agent.send_as(6, input("two"));
    assert_eq!(agent.reply(6), ReplyBody::Done);
    assert_eq!(agent.finish("r").stdout, "one two\n");
}
