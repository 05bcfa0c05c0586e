//! Media and HTML.

use bai_kernel_lib::{config::RuntimeType, protocol::Stream};

use crate::harness::Runner;

#[test]
fn the_first_rich_form_is_sent() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    agent.query("class R:\n    def __init__(self, **f):\n        for n, v in f.items(): setattr(self, n, lambda v=v: v)\n    def __repr__(self): return 'plain'");
    let html = agent.query("R(_repr_html_='<b>x</b>', _repr_png_=b'1')");
    assert_eq!((html.html, html.media.len(), html.stdout.as_str()), (vec!["<b>x</b>".to_owned()], 0, ""));
    let png = agent.query("R(_repr_png_=b'\\x89PNG')");
    assert_eq!(png.media, [("image/png".into(), "data:image/png;base64,iVBORw==".into())]);
    let svg = agent.query("R(_repr_svg_='<svg/>')");
    assert_eq!(svg.media, [("image/svg+xml".into(), "<svg/>".into())]);
    let bundle = agent.query("R(_repr_mimebundle_={'text/plain': 'p', 'text/html': '<i/>'})");
    assert_eq!(bundle.html, ["<i/>"]);
    assert_eq!(agent.query("R()").stdout, "plain\n");
    assert_eq!(agent.query("R").media.len(), 0);
    let order = agent.query("print('before')\ndisplay(R(_repr_html_='h'))\nprint('after')");
    assert_eq!((order.stdout.as_str(), order.html.len()), ("before\nafter\n", 1));
    let big = agent.query("R(_repr_svg_='x' * (11 << 20))");
    assert!(big.media.is_empty() && big.stderr.contains("too large"));
}

#[test]
fn figures_are_shown_and_matplotlib_is_not_imported_unasked() {
    let python = std::env::var_os("BAI_TEST_PYTHON").map(Into::into); // the one that has matplotlib
    let runner = Runner::start_with(RuntimeType::Python, |config| config.runtime_path = python);
    let mut agent = runner.connect();
    assert_eq!(agent.query("import sys\n'matplotlib' in sys.modules").stdout, "False\n");
    let shown = agent.query("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('after')");
    assert_eq!(shown.stdout, "after\n", "matplotlib is needed for this test: {shown:?}");
    assert_eq!(shown.media.len(), 1);
    assert_eq!(shown.media[0].0, "image/png");
    assert!(shown.media[0].1.starts_with("data:image/png;base64,iVBOR"));
    let left_open = agent.query("f, a = plt.subplots()\na.plot([3, 1]);");
    assert_eq!((left_open.media.len(), left_open.stdout.as_str()), (1, ""));
    let value = agent.query("f, a = plt.subplots()\nf");
    assert_eq!(value.media.len(), 1, "an open figure is not shown twice");
    assert_eq!(agent.query("f").media.len(), 1, "a closed one can be shown again");
    assert_eq!(agent.query("1").media.len(), 0);
    let failed = agent.query("plt.plot([1])\n1/0");
    assert_eq!(failed.media.len(), 1);
    assert!(failed.console.iter().any(|(stream, _)| *stream == Stream::Stderr));
}
