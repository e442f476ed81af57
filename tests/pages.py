"""Widgets as a page would show them: for tests that look at what is sent."""

from html.parser import HTMLParser


def walk(widget):
    """A widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


class Page(HTMLParser):
    """Tags with their attributes, and the text that is shown."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.text += "\n" if tag == "br" else ""

    def handle_data(self, data):
        self.text += data
