//! The user's `bootstrap.sh`: run once, beside everything else, so that it delays nobody.

use std::{io, sync::Arc, thread};

use super::{kernel::Kernel, pump::Outputs};

const NAME: &str = "bootstrap.sh";

pub(super) fn start(kernel: &Arc<Kernel>) -> io::Result<()> {
    let script = kernel.config.work_dir.join(NAME);
    if !script.is_file() {
        return Ok(());
    }
    let Some(shell) = kernel.environment.shell.clone() else {
        kernel.log.write(b"bootstrap.sh: this image has no shell\n");
        return Ok(());
    };
    let kernel = Arc::clone(kernel);
    let body = move || {
        let line = match run(&kernel, &shell, &script) {
            Ok(code) => format!("{NAME} exited with code {code}\n"),
            Err(e) => format!("{NAME}: {e}\n"),
        };
        kernel.log.write(line.as_bytes());
    };
    thread::Builder::new().name("bootstrap".into()).stack_size(256 << 10).spawn(body).map(drop)
}

fn run(kernel: &Kernel, shell: &[std::ffi::OsString], script: &std::path::Path) -> io::Result<i32> {
    let (outputs, ends) = Outputs::pair()?;
    let argv: Vec<_> = shell.iter().filter(|word| *word != "-c").cloned().chain([script.into()]).collect();
    let mut command = kernel.launcher.command(&argv, &[]);
    command.stdout(ends.stdout).stderr(ends.stderr);
    let process = kernel.processes.spawn(&mut command)?;
    drop(command);
    outputs.leave_to_log(&kernel.log);
    Ok(process.wait()?.code)
}
