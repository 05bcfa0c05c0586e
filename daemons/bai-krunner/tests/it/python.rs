//! Query mode of Python.

use bai_kernel_lib::{
    config::RuntimeType,
    protocol::{Command, ErrorCode, InterpreterState, ReplyBody, Stream, Work},
};

use crate::harness::{Outcome, Runner, until};

fn python() -> (Runner, crate::harness::Agent) {
    let runner = Runner::start(RuntimeType::Python);
    let agent = runner.connect();
    (runner, agent)
}

#[test]
fn state_is_kept_and_the_last_value_shown() {
    let (_runner, mut agent) = python();
    let first = agent.query("import math\nx = 41\nprint('hello')");
    assert_eq!((first.stdout.as_str(), first.exit_code), ("hello\n", 0));
    assert_eq!(agent.query("x += 1\nx").stdout, "42\n");
    assert_eq!(agent.query("_ * 2").stdout, "84\n");
    assert_eq!(agent.query("x;").stdout, "");
    assert_eq!(agent.query("None").stdout, "");
    assert_eq!(agent.query("def f():\n    return __name__\nf()").stdout, "'__main__'\n");
    assert_eq!(agent.query("'é' * 3").stdout, "'ééé'\n");
    assert_eq!(agent.query("").exit_code, 0);
    assert_eq!(agent.query("import os\nos.getcwd() == os.environ['HOME']").stdout, "True\n");
}

#[test]
fn exceptions_show_the_cell_and_leave_the_state() {
    let (_runner, mut agent) = python();
    let outcome = agent.query("y = 5\ndef f():\n    return 1/0\nf()");
    assert_eq!(outcome.exit_code, 0);
    assert!(outcome.stderr.contains("ZeroDivisionError: division by zero"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("    return 1/0"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("bai-driver"), "{}", outcome.stderr);
    assert_eq!(agent.query("y").stdout, "5\n");
    let outcome = agent.query("if:");
    assert!(outcome.stderr.contains("SyntaxError"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("bai-driver"), "{}", outcome.stderr);
    let chained = agent.query("try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e");
    assert!(chained.stderr.contains("KeyError: 'a'") && chained.stderr.contains("ValueError: b"));
}

#[test]
fn exit_codes_are_0_unless_asked_for() {
    let (_runner, mut agent) = python();
    for (number, (code, strict)) in
        [("1/0", 1), ("raise SystemExit(3)", 3), ("exit()", 0), ("1", 0)].iter().enumerate()
    {
        let normal = agent.query(code);
        assert_eq!((normal.exit_code, normal.signal), (0, None), "{code}");
        let run_id = format!("strict{number}");
        agent.submit(&run_id, Work::Query { code: (*code).into(), strict_exit: true });
        assert_eq!(agent.finish(&run_id).exit_code, *strict, "{code}");
    }
    assert_eq!(agent.query("import sys\nsys.exit('bye')").stderr, "bye\n");
}

#[test]
fn input_and_passwords_are_asked_for() {
    let (_runner, mut agent) = python();
    agent.submit_query("r", "import getpass\nn = input('n? ')\np = getpass.getpass('p? ')\nprint(n, p)");
    let mut outcome = Outcome::default();
    assert!(!agent.wait_for_prompt("r", &mut outcome));
    assert_eq!(outcome.stdout, "n? ");
    assert!(agent.status().waiting_input);
    agent.input("forty two");
    assert!(agent.wait_for_prompt("r", &mut outcome));
    agent.input("sécret");
    let end = agent.finish("r");
    assert_eq!(end.stdout, "forty two sécret\n");
    let answer = agent.ask(Command::Input { run_id: None, text: "x".into() });
    assert!(matches!(answer, ReplyBody::Error { code: ErrorCode::NotFound, .. }));
}

#[test]
fn a_prompt_can_be_interrupted() {
    let (_runner, mut agent) = python();
    agent.submit_query("r", "input('? ')");
    agent.wait_for_prompt("r", &mut Outcome::default());
    agent.interrupt();
    assert!(agent.finish("r").stderr.contains("KeyboardInterrupt"));
    agent.submit_query("s", "input('again? ')");
    agent.wait_for_prompt("s", &mut Outcome::default());
    agent.input("yes");
    assert_eq!(agent.finish("s").stdout, "'yes'\n");
}

#[test]
fn busy_and_sleeping_cells_are_interrupted() {
    let (_runner, mut agent) = python();
    for body in [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import os, time; os.system('sleep 1000'); time.sleep(1000)",
    ] {
        agent.submit_query(body, &format!("z = 1\nprint('started', flush=True)\n{body}"));
        agent.wait_for_output(body, "started");
        agent.interrupt();
        if body.contains("system") {
            // The first one ended the command only, as on a terminal.
            std::thread::sleep(std::time::Duration::from_millis(300));
            agent.interrupt();
        }
        let outcome = agent.finish(body);
        assert!(outcome.stderr.contains("KeyboardInterrupt"), "{body}: {outcome:?}");
        assert_eq!(outcome.exit_code, 0);
    }
    assert_eq!(agent.query("z").stdout, "1\n");
}

#[test]
fn an_idle_interpreter_does_not_mind_interrupts() {
    let (_runner, mut agent) = python();
    agent.query("a = 1");
    for _ in 0..20 {
        agent.interrupt();
    }
    assert_eq!(agent.query("a").stdout, "1\n");
}

#[test]
fn many_interrupts_at_bad_moments_break_nothing() {
    let (_runner, mut agent) = python();
    agent.query("n = 0");
    for round in 0..30 {
        let run_id = format!("r{round}");
        agent.submit_query(
            &run_id,
            "for i in range(300):\n    print(i)\n    import sys; print(i, file=sys.stderr)\nn += 1",
        );
        for _ in 0..4 {
            agent.interrupt();
        }
        let outcome = agent.finish(&run_id);
        assert!(!outcome.stderr.contains("The interpreter"), "{}", outcome.stderr);
    }
    let outcome = agent.query("isinstance(n, int)");
    assert_eq!(outcome.stdout, "True\n", "{outcome:?}");
}

#[test]
fn a_cell_that_ignores_interrupts_only_delays_the_queue() {
    let (runner, mut agent) = python();
    let stubborn = "import os, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
                    print('started', flush=True)\nwhile not os.path.exists('stop'): time.sleep(0.01)";
    agent.submit_query("a", stubborn);
    agent.submit_query("b", "print('b')");
    agent.submit_query("c", "print('c')");
    agent.wait_for_output("a", "started");
    for _ in 0..5 {
        agent.interrupt();
    }
    let status = agent.status();
    assert_eq!(status.active.as_deref(), Some("a"));
    assert_eq!(status.queued, ["b", "c"]);
    assert_eq!(status.interpreter, InterpreterState::Busy);
    assert_eq!(agent.ask(Command::Interrupt { run_id: Some("b".into()) }), ReplyBody::Done);
    assert_eq!(agent.finish("b").exit_code, 130);
    runner.write("stop", "");
    assert_eq!(agent.finish("a").exit_code, 0);
    assert_eq!(agent.finish("c").stdout, "c\n");
}

#[test]
fn runs_are_first_in_first_out() {
    let (_runner, mut agent) = python();
    agent.submit_query("a", "import time\ntime.sleep(0.2)\nlog = ['a']");
    for name in ["b", "c", "d"] {
        agent.submit_query(name, &format!("log.append('{name}')"));
    }
    agent.submit_query("e", "print(*log)");
    assert_eq!(agent.finish("e").stdout, "a b c d\n");
}

#[test]
fn a_run_sent_twice_runs_once() {
    let (_runner, mut agent) = python();
    agent.submit_query("first", "count = 0");
    agent.submit_query("r", "count += 1\ncount");
    let again = Command::Execute { run_id: "r".into(), work: crate::harness::query("count += 1\ncount") };
    assert_eq!(agent.ask(again.clone()), ReplyBody::Accepted { duplicate: true });
    assert_eq!(agent.finish("r").stdout, "1\n");
    assert_eq!(agent.ask(again), ReplyBody::Accepted { duplicate: true });
    assert_eq!(agent.query("count").stdout, "1\n");
}

#[test]
fn completions_come_from_the_live_namespace() {
    let (_runner, mut agent) = python();
    agent.query("import os.path\nalphabet = 'abc'\nclass K:\n    attribute_one = 1\nk = K()");
    assert_eq!(agent.complete("impor"), ["import"]);
    assert_eq!(agent.complete("x = alph"), ["alphabet"]);
    assert_eq!(agent.complete("print(k.attr"), ["k.attribute_one"]);
    assert!(agent.complete("os.pa").contains(&"os.path".to_owned()));
    assert!(agent.complete("import js").contains(&"json".to_owned()));
    assert!(agent.complete("from os import getc").contains(&"getcwd".to_owned()));
    assert!(agent.complete("nothing.at.all").is_empty());
}

#[test]
fn completions_do_not_wait_for_a_busy_cell() {
    let (_runner, mut agent) = python();
    agent.submit_query("r", "beta_name = 1\nprint('started', flush=True)\nwhile True: pass");
    agent.wait_for_output("r", "started");
    assert_eq!(agent.complete("beta_"), ["beta_name"]);
    agent.interrupt();
    agent.finish("r");
    assert_eq!(agent.complete("beta_"), ["beta_name"]);
}

#[test]
fn completion_starts_a_lazy_interpreter() {
    let runner = Runner::start_with(RuntimeType::Python, |config| config.prestart = false);
    let mut agent = runner.connect();
    assert_eq!(agent.status().interpreter, InterpreterState::Absent);
    assert_eq!(agent.complete("impor"), ["import"]);
    assert_eq!(agent.status().interpreter, InterpreterState::Idle);
}

#[test]
fn a_dead_interpreter_is_reported_and_replaced() {
    let (_runner, mut agent) = python();
    agent.query("x = 1");
    for (code, exit, signal, text) in [
        ("print('last words', end='', flush=True)\nimport os\nos._exit(7)", 7, None, "exited with code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", 139, Some(11), "SIGSEGV"),
        ("import os\nos.closerange(3, 1024)\nimport time\ntime.sleep(100)", 137, Some(9), "SIGKILL"),
    ] {
        let outcome = agent.query(code);
        assert_eq!((outcome.exit_code, outcome.signal), (exit, signal), "{outcome:?}");
        assert!(outcome.stderr.contains(text), "{outcome:?}");
        let next = agent.query("'x' in globals()");
        assert_eq!(next.stdout, "False\n", "{next:?}");
    }
}

#[test]
fn an_interpreter_that_dies_between_cells_is_replaced() {
    let (_runner, mut agent) = python();
    agent.query("import threading, os, time\ndef end():\n    time.sleep(0.1)\n    os._exit(1)\nthreading.Thread(target=end).start()");
    until(|| (agent.status().interpreter == InterpreterState::Absent).then_some(()));
    assert_eq!(agent.query("1+1").stdout, "2\n");
}

#[test]
fn the_order_of_output_and_errors_is_kept() {
    let (_runner, mut agent) = python();
    let outcome =
        agent.query("import sys\nfor i in range(50):\n    print(i)\n    print(-i, file=sys.stderr)\n1/0");
    assert_eq!(outcome.console.len(), 100);
    for (index, pair) in outcome.console.chunks(2).enumerate() {
        assert_eq!(pair[0], (Stream::Stdout, format!("{index}\n")));
        assert!(
            pair[1].0 == Stream::Stderr && pair[1].1.starts_with(&format!("-{index}\n").replace("-0", "0"))
        );
    }
}

#[test]
fn everything_a_cell_starts_is_heard() {
    let (_runner, mut agent) = python();
    let code = "import os, subprocess, sys\nprint('py', end='', flush=True)\nos.system('echo sh')\n\
                subprocess.run(['sh', '-c', 'echo err >&2'])\nos.write(1, b'raw\\n')\nsys.stdout.buffer.write(b'\\xff\\n')";
    let outcome = agent.query(code);
    assert_eq!(outcome.stdout, "pysh\nraw\n\u{fffd}\n2\n");
    assert_eq!(outcome.stderr, "err\n");
}

#[test]
fn forks_and_threads_are_harmless() {
    let (_runner, mut agent) = python();
    let code = "import os, threading\npid = os.fork()\nif pid == 0:\n    print('child')\n    os._exit(0)\nos.waitpid(pid, 0)\n\
                t = threading.Thread(target=lambda: print('thread'))\nt.start(); t.join()\n\
                import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))";
    let outcome = agent.query(code);
    assert_eq!(outcome.stdout, "child\nthread\n[1, 2]\n", "{outcome:?}");
    // A forked copy that falls out of the cell does not become a second interpreter.
    let outcome = agent.query("import os\nif os.fork() == 0: print('copy')\nelse: os.wait()");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("copy\n", ""));
    assert_eq!(agent.query("'still one'").stdout, "'still one'\n");
}

#[test]
fn await_works_at_the_top_level() {
    let (_runner, mut agent) = python();
    let outcome = agent.query(
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 'done'\nr = await f()\nr",
    );
    assert_eq!(outcome.stdout, "'done'\n", "{outcome:?}");
    assert_eq!(agent.query("await f()").stdout, "'done'\n");
    assert_eq!(agent.query("asyncio.run(f())").stdout, "'done'\n");
}

#[test]
fn shell_lines_are_understood() {
    let (_runner, mut agent) = python();
    assert_eq!(agent.query("x = 1\n!echo hi\nif x:\n    !echo there").stdout, "hi\nthere\n");
    assert!(agent.query("%nonsense").stderr.contains("unknown command"));
}

#[test]
fn output_between_cells_belongs_to_none() {
    let (runner, mut agent) = python();
    agent.query("import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late words')\nthreading.Thread(target=late).start()");
    until(|| runner.log().contains("late words").then_some(()));
    assert_eq!(agent.query("1").stdout, "1\n");
}

#[test]
fn an_idle_runner_sleeps() {
    let (runner, mut agent) = python();
    // A script that asks while no run is active is told that there is no input, and nobody spins over it.
    let script = "import builtins\nprint(repr(input('? ')))";
    runner.write("ask.py", script);
    let launch = "import os, subprocess, sys\nbatch = dict(os.environ, _BACKEND_BATCH_MODE='1')\n\
                 p = subprocess.Popen(['sh', '-c', f'sleep 0.2; {sys.executable} ask.py'], env=batch)";
    agent.query(launch);
    until(|| runner.log().contains("? ''").then_some(()));
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", runner.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = cpu();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(cpu() - before <= 2, "it used {} ticks of a second", cpu() - before);
}

#[test]
fn huge_code_and_odd_characters_arrive() {
    let (_runner, mut agent) = python();
    let text = "x".repeat(5 << 20);
    assert_eq!(agent.query(&format!("s = '{text}'\nlen(s)")).stdout, format!("{}\n", 5 << 20));
    let outcome = agent.query("print('\\ud800')\nprint('\\U0001f600')");
    assert!(outcome.stdout.ends_with("😀\n"), "{outcome:?}");
    assert!(agent.query("a\0b").stderr.contains("null bytes"));
}

#[test]
fn a_closed_or_replaced_stdout_is_survived() {
    let (_runner, mut agent) = python();
    agent.query("import sys\nsys.stdout.close()");
    assert_eq!(agent.query("print('back')").stdout, "back\n");
    agent.query("import io\nold, sys.stdout = sys.stdout, io.StringIO()\nprint('hidden')");
    assert_eq!(agent.query("v = sys.stdout.getvalue()\nsys.stdout = old\nv").stdout, "'hidden\\n'\n");
    agent.query("sys.excepthook = lambda *a: 1/0\n1/0");
    assert_eq!(agent.query("'fine'").stdout, "'fine'\n");
}

#[test]
fn without_python_a_query_says_so() {
    let runner = Runner::start_with(RuntimeType::Python, |config| {
        config.environ.insert("PATH".into(), "/nowhere".into());
    });
    let outcome = runner.connect().query("1");
    assert_eq!(outcome.exit_code, 127);
    assert!(outcome.stderr.contains("no python runtime"));
}
