//! C, C++ and shell.

use bai_kernel_lib::config::RuntimeType;

use crate::harness::Runner;

#[test]
fn c_queries_are_compiled_and_run() {
    let runner = Runner::start(RuntimeType::C);
    let mut agent = runner.connect();
    let code = "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%g\\n\", sqrt(c * 16.0)); return 5; }";
    for _ in 0..2 {
        let outcome = agent.query(code);
        assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("4\n", 5), "{outcome:?}");
    }
    let broken = agent.query("int main( {");
    assert_ne!(broken.exit_code, 0);
    assert!(broken.stderr.contains("query.c:1"), "{broken:?}");
}

#[test]
fn cpp_queries_are_compiled_and_run() {
    let runner = Runner::start(RuntimeType::Cpp);
    let outcome =
        runner.connect().query("#include <iostream>\nint main() { std::cout << \"hi\" << std::endl; }");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("hi\n", 0), "{outcome:?}");
}

#[test]
fn c_defaults_build_all_sources() {
    let runner = Runner::start(RuntimeType::C);
    let mut agent = runner.connect();
    let missing = agent.batch(Some("*"), Some("*"), Some("*"));
    assert_eq!((missing.steps, missing.exit_code), (vec![("clean", 0), ("build", 127)], 127));
    assert!(missing.stderr.contains("main.c"));
    runner.write(
        "main.c",
        "#include <stdio.h>\nint other(void);\nint main(void) { printf(\"%d\\n\", other()); return 0; }",
    );
    std::fs::create_dir(runner.config.work_dir.join("lib")).unwrap();
    runner.write("lib/other.c", "int other(void) { return 77; }");
    let outcome = agent.batch(Some("*"), Some("*"), Some("*"));
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("77\n", 0), "{outcome:?}");
    runner.write("Makefile", "all:\n\t@echo make all\nclean:\n\t@echo make clean\n");
    let outcome = agent.batch(Some("*"), Some("*"), Some("*"));
    assert_eq!(outcome.stdout, "make clean\nmake all\n77\n");
}

#[test]
fn shell_queries_keep_directory_and_exports() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    std::fs::create_dir(runner.config.work_dir.join("sub dir")).unwrap();
    let first = agent.query("cd 'sub dir'; export A=\"it's\"; echo one; exit 4");
    assert_eq!((first.stdout.as_str(), first.exit_code), ("one\n", 4), "{first:?}");
    let second = agent.query("basename \"$PWD\"; echo $A; echo err >&2; false");
    assert_eq!((second.stdout.as_str(), second.exit_code), ("sub dir\nit's\n", 1), "{second:?}");
    assert_eq!(second.stderr, "err\n");
    let long = agent.query(&format!("X={}; echo ${{#X}}", "y".repeat(1 << 20)));
    assert_eq!(long.stdout, "1048576\n");
}

#[test]
fn other_languages_run_commands_only() {
    let runner = Runner::start(RuntimeType::from("julia".to_owned()));
    let mut agent = runner.connect();
    let query = agent.query("1");
    assert_eq!(query.exit_code, 127);
    assert!(query.stderr.contains("julia"));
    assert_eq!(agent.batch(None, None, Some("echo ok")).stdout, "ok\n");
    assert_eq!(agent.batch(None, None, Some("*")).exit_code, 127);
}
