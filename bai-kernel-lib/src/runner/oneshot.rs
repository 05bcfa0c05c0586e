//! Query mode of the languages without an interpreter: a source file is compiled and run, or handed to the shell.

use std::{ffi::OsString, fs, io, path::Path};

use super::{executor::run_program, kernel::Kernel, process::Exit, pump::Sink};

/// Exit code when there is no such command.
const NOT_FOUND: i32 = 127;

/// Compiles and runs a C or C++ program.
pub(super) fn compiled(
    kernel: &Kernel,
    extension: &str,
    code: &str,
    sink: &mut Sink<'_>,
) -> io::Result<Exit> {
    let source = SourceFile::write(kernel, extension, code)?;
    let program = kernel.dirs.user.join("query");
    let compiler = kernel.environment.runtime.clone().unwrap_or_else(|| "cc".into());
    let words: [OsString; 7] = [
        compiler.into(),
        "-Wall".into(),
        "-pipe".into(),
        "-o".into(),
        program.clone().into(),
        source.path().into(),
        "-lm".into(),
    ];
    let built = run_program(kernel, &words, &[], sink)?;
    if built.code != 0 {
        return Ok(built);
    }
    run_program(kernel, &[program.into()], &[], sink)
}

/// Runs a shell script. The working directory and exported variables are carried over to the next query, by
/// a file that the shell writes when it ends.
pub(super) fn shell(kernel: &Kernel, code: &str, sink: &mut Sink<'_>) -> io::Result<Exit> {
    let Some(shell) = &kernel.environment.shell else {
        return match kernel.environment.command(code) {
            Ok(argv) => run_program(kernel, &argv, &[], sink),
            Err(text) => {
                sink.say(&text);
                Ok(Exit::code(NOT_FOUND))
            }
        };
    };
    let source = SourceFile::write(kernel, "sh", code)?;
    let state = quoted(&kernel.dirs.user.join("state.sh").to_string_lossy());
    let source_path = quoted(&source.path().to_string_lossy());
    let save = quoted(&format!("export -p >{state}"));
    let script = format!(
        "if [ -f {state} ]; then . {state} 2>&-; cd -- \"$PWD\" 2>&-; fi\n\
         trap {save} EXIT\n\
         . {source_path}\n"
    );
    let argv: Vec<OsString> = shell.iter().cloned().chain([script.into()]).collect();
    run_program(kernel, &argv, &[], sink)
}

/// A source file in the runner's own directory, where user code cannot put a link in its way; removed at the end.
struct SourceFile(std::path::PathBuf);

impl SourceFile {
    fn write(kernel: &Kernel, extension: &str, code: &str) -> io::Result<Self> {
        let path = kernel.dirs.root.join(format!("query.{extension}"));
        fs::write(&path, code)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
