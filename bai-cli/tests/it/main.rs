//! What a person reads: the help of every command, kept as snapshots (`cargo insta review`).

/// The help of `bai` and of each of its commands, `-h` and `--help`.
#[test]
fn help() {
    let mut bai = bai_cli::command_line().term_width(100);
    bai.build();
    insta::assert_snapshot!("bai", bai.render_long_help());
    let names: Vec<_> = bai.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    assert_eq!(names.len(), 19, "eighteen commands and `help`");
    for name in names.iter().filter(|name| *name != "help") {
        let command = bai.find_subcommand_mut(name).unwrap();
        let short = command.render_help().to_string();
        assert!(short.lines().all(|line| line.chars().count() <= 100), "{short}");
        insta::assert_snapshot!(name.as_str(), short);
    }
}
