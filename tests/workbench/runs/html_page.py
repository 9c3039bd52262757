"""A parser of the pages of reports, which checks that tags are balanced."""

import html.parser

VOID = {"meta", "img", "br", "hr", "link", "input"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2"),
    *("p", "span", "time", "dl", "div", "dt", "dd", "figure", "figcaption", "b", "img"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "id", "datetime", "src", "alt"),
    *("width", "height", "tabindex", "role", "aria-label", "scope", "colspan", "rowspan"),
}


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps tags, attributes and text."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
