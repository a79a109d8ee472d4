"""What tests of pages share: reading them, and strings and runs to make them of."""

from html.parser import HTMLParser

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&"


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += "" if self.lasttag == "style" else data
