//! The language drivers: small programs in the language itself, carried inside the runner.

use crate::config::RuntimeType;

/// Files put on the path of every Python of the kernel.
pub(crate) const PYTHON_FILES: [(&str, &str); 2] = [
    ("sitecustomize.py", include_str!("../drivers/sitecustomize.py")),
    ("bai_mpl_backend.py", include_str!("../drivers/bai_mpl_backend.py")),
];

/// How to keep an interpreter: its source is read by `bootstrap` (an argument after `flag`) from the descriptor
/// named by the first argument; the control and completion sockets are named by the other two.
#[derive(Debug)]
pub(crate) struct DriverSource {
    pub(crate) flag: &'static str,
    pub(crate) bootstrap: &'static str,
    pub(crate) source: &'static str,
    /// Variables that are set unless the user has set them.
    pub(crate) variables: &'static [(&'static str, &'static str)],
}

static PYTHON: DriverSource = DriverSource {
    flag: "-c",
    bootstrap: "import os,sys\nwith os.fdopen(int(sys.argv[1]),'rb') as f:\n s=f.read()\n\
                exec(compile(s,'<bai-driver>','exec'),{'__name__':'__bai_driver__'})",
    source: include_str!("../drivers/python.py"),
    variables: &[("MPLBACKEND", "module://bai_mpl_backend")],
};

static NODE: DriverSource = DriverSource {
    flag: "-e",
    bootstrap: "{const[,s,c,d]=process.argv.map(Number),f=require('fs');process.argv.length=1;\
                const t=f.readFileSync(s,'utf8');f.closeSync(s);\
                require('vm').runInThisContext(t,{filename:'bai-driver'})(require,c,d)}",
    source: include_str!("../drivers/node.js"),
    variables: &[],
};

/// The driver of a language, if it has one.
pub(crate) fn of(runtime: &RuntimeType) -> Option<&'static DriverSource> {
    match runtime {
        RuntimeType::Python => Some(&PYTHON),
        RuntimeType::Nodejs => Some(&NODE),
        _ => None,
    }
}
