//! Query mode of Node.js.

use bai_kernel_lib::config::RuntimeType;

use crate::harness::{Agent, Runner};

fn node() -> (Runner, Agent) {
    let runner = Runner::start(RuntimeType::Nodejs);
    let agent = runner.connect();
    (runner, agent)
}

#[test]
fn state_is_kept_and_declarations_can_be_repeated() {
    let (_runner, mut agent) = node();
    assert_eq!(
        agent
            .query("const x = 41; let {y} = {y: 1}; class A { m() { return 'm' } }\nconsole.log('hello')")
            .stdout,
        "hello\n"
    );
    assert_eq!(agent.query("const x = 1 + 41; x").stdout, "42\n");
    assert_eq!(agent.query("new A().m() + y").stdout, "'m1'\n");
    assert_eq!(
        agent.query("class A {}; let s = `const z = ${ {a: 1}.a } let`; s").stdout,
        "'const z = 1 let'\n"
    );
    assert_eq!(agent.query("undefined").stdout, "");
    assert_eq!(agent.query("{a: 1}").stdout, "{ a: 1 }\n");
    assert_eq!(agent.query("/const let/.test('const let') // const q\n").stdout, "true\n");
    assert_eq!(agent.query("require('path').basename('/a/b')").stdout, "'b'\n");
    assert_eq!(agent.query("process.cwd() == process.env.HOME").stdout, "true\n");
}

#[test]
fn errors_are_shown_and_survived() {
    let (_runner, mut agent) = node();
    let outcome = agent.query("let keep = 3;\nfunction f() { throw new Error('boom') }\nf()");
    assert_eq!(outcome.exit_code, 0);
    assert!(outcome.stderr.contains("Error: boom") && outcome.stderr.contains("cell-1:2"), "{outcome:?}");
    assert!(!outcome.stderr.contains("bai-driver"), "{outcome:?}");
    assert!(agent.query("let = = 1").stderr.contains("SyntaxError"));
    assert!(agent.query("setTimeout(() => { throw new TypeError('later') }, 1)").stderr.contains("later"));
    assert!(agent.query("throw 5").stderr.contains("Uncaught 5"));
    assert_eq!(agent.query("process.exit(3)").exit_code, 0);
    assert_eq!(agent.query("keep").stdout, "3\n");
}

#[test]
fn a_cell_ends_with_its_event_loop() {
    let (_runner, mut agent) = node();
    let outcome = agent.query("setTimeout(() => console.log('timer'), 50); console.error('e'); 'value'");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("'value'\ntimer\n", "e\n"));
    let awaited =
        agent.query("const r = await new Promise(f => setTimeout(() => f(7), 10)); console.log('r', r)");
    assert_eq!(awaited.stdout, "r 7\n", "{awaited:?}");
    assert_eq!(agent.query("r").stdout, "7\n");
    assert_eq!(agent.query("await Promise.resolve('v')").stdout, "'v'\n");
}

#[test]
fn busy_and_waiting_cells_are_interrupted() {
    let (_runner, mut agent) = node();
    let waiting = "setInterval(() => console.log('started'), 10)";
    for (run_id, body) in [("busy", "console.log('started'); for (;;) {}"), ("waiting", waiting)] {
        agent.submit_query(run_id, body);
        agent.wait_for_output(run_id, "started");
        agent.interrupt();
        let outcome = agent.finish(run_id);
        assert!(outcome.stderr.contains("Interrupted"), "{outcome:?}");
    }
    // The interval goes on, and keeps no later cell.
    assert!(agent.query("'next cell'").stdout.contains("'next cell'\n"));
}

#[test]
fn an_interrupt_while_a_cell_begins_is_not_lost() {
    let (_runner, mut agent) = node();
    agent.query("let kept = 1");
    for i in 0..40 {
        let run_id = format!("busy{i}");
        agent.submit_query(&run_id, "for (;;) {}");
        std::thread::sleep(std::time::Duration::from_micros(50 * i));
        agent.interrupt();
        let outcome = agent.finish(&run_id);
        assert!(outcome.stderr.contains("Interrupted"), "{i}: {outcome:?}");
    }
    assert_eq!(agent.query("kept").stdout, "1\n");
}

#[test]
fn completions_come_from_the_live_namespace() {
    let (_runner, mut agent) = node();
    agent.query("var alphabet = {letterOne: 1}");
    assert_eq!(agent.complete("alph"), ["alphabet"]);
    assert_eq!(agent.complete("f(alphabet.lett"), ["alphabet.letterOne"]);
    assert!(agent.complete("nothing.at").is_empty());
}

#[test]
fn a_dead_process_is_replaced() {
    let (_runner, mut agent) = node();
    let outcome = agent.query("process.kill(process.pid, 'SIGKILL'); for (;;) {}");
    assert_eq!((outcome.exit_code, outcome.signal), (137, Some(9)));
    assert_eq!(agent.query("1 + 1").stdout, "2\n");
}

#[test]
fn defaults_run_main_js() {
    let (runner, mut agent) = node();
    assert_eq!(agent.batch(Some("*"), Some("*"), Some("*")).exit_code, 127);
    runner.write("main.js", "console.log('main', process.argv.length)");
    assert_eq!(agent.batch(Some("*"), Some("*"), Some("*")).stdout, "main 2\n");
}
