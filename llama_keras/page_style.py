"""What the pages that this package draws have in common: colours by day and night, text, tables."""

from markupsafe import Markup

# Goes into the <style> of a page, before its own rules.
PAGE_STYLE = Markup("""\
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2330; --soft: #5b6678; --line: #d5dbe5;
  --chip: #eef2f8; --accent: #0b61c4; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e6eaf1; --soft: #9aa6b8;
  --line: #333c4a; --chip: #232a36; --accent: #6db1ff; --wrong: #ff8a80; } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC",
  "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .2rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
p { margin: .2rem 0 .6rem; max-width: 60rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
""")
