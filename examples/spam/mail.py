"""A mail as what its reader sees of it: the decoded subject and the body's text, and when it came.

Rules, for every mail:

- Of alternatives text/plain is taken if it says anything, else HTML as text. Attachments are left out; quotes,
  signatures and footers stay. No header but the subject is kept, so that neither the mailing list's own lines nor
  another filter's (X-Spam-Status) give the answer away.
- A part is read in the character set that it names, in the one that its HTML names, or in UTF-8, whichever first
  reads every byte; else in the one named, or in Windows-1252, with U+FFFD for bytes that are no letter there.
- A subject's bare bytes beyond ASCII are read as UTF-8, else like the body.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from email.message import Message
from email.utils import parsedate
from html.parser import HTMLParser

WIDER = {
    "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932",
}  # fmt: skip
"""Character set -> the larger one that mail programs read it as."""
UNTOLD = ("ascii", "iso8859-1")
"""Named by mail programs whatever was written, so they tell nothing."""


def text(message: Message) -> str:
    """Subject, newline, body."""
    return f"{subject(message)}\n{body(message)}"


def received(message: Message) -> str:
    """YYYY-MM-DD on which the last server took it, else the mailbox's date or the sender's (which may say
    anything: 1980, 2028); "" without any."""
    servers = [str(line).rsplit(";", 1)[-1] for line in message.get_all("Received", [])]
    mailbox = re.sub(r"^From \S+\s+", "", message.get_unixfrom() or "")
    for told in [*servers[:1], mailbox, str(message["Date"] or "")]:
        date = parsedate(told)
        if date and 1990 <= date[0] < 2010 and 1 <= date[1] <= 12:
            return f"{date[0]}-{date[1]:02}-{date[2]:02}"
    return ""


def subject(message: Message) -> str:
    """As a mail program shows it, on one line."""
    raw = next((value for name, value in message.raw_items() if name.lower() == "subject"), "")
    content = str(raw).encode("ascii", "surrogateescape")
    content = re.sub(rb"(\?=)\s+(=\?)", rb"\1\2", content)  # blanks between two encoded words do not count
    pieces = re.split(rb"(=\?[^?\s]+\?[bBqQ]\?[^?]*\?=)", content)
    like_body = [str(part.get_content_charset() or "") for part in message.walk()]
    return " ".join("".join(_decoded(piece, like_body) for piece in pieces).split())


def _decoded(piece: bytes, charsets: list[str]) -> str:
    """A piece of a header: =?charset?encoding?content?= (RFC 2047), or plain."""
    found = re.fullmatch(rb"=\?([^?\s]+)\?([bBqQ])\?([^?]*)\?=", piece)
    if not found:
        try:
            return piece.decode()  # before other sets, in which UTF-8 would be letters too
        except UnicodeDecodeError:
            return letters(piece, charsets)
    charset, how, content = found.groups()
    try:
        plain = base64.b64decode(content + b"==") if how in b"bB" else binascii.a2b_qp(content, header=True)
    except binascii.Error:
        return letters(piece, [])
    return letters(plain, [charset.decode("ascii", "replace")])


def body(part: Message) -> str:
    """The text of a message, or of a part of one."""
    inner = part.get_payload()
    if isinstance(inner, list):
        told = [(p.get_content_type(), body(p)) for p in inner if isinstance(p, Message)]
        told = [(kind, words) for kind, words in told if words.strip()]
        if part.get_content_subtype() == "alternative":
            told = sorted(told, key=lambda one: one[0] != "text/plain")[:1]
        return "\n\n".join(words for _, words in told)
    if part.get_content_disposition() == "attachment" or part.get_content_maintype() not in ("text", "multipart"):
        return ""  # a multipart without parts is broken, and is shown as it is
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    named = [str(part.get_content_charset() or "")]
    if part.get_content_subtype() != "html":
        return letters(content, named)
    meta = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]+)""", content, re.I)
    return page_text(letters(content, [*named, *([meta[1].decode("ascii", "replace")] if meta else [])]))


def letters(content: bytes, named: list[str]) -> str:
    """Bytes as text; see the rules above."""
    charsets = []
    for name in named:
        try:
            known = codecs.lookup(name).name
        except (LookupError, ValueError):
            continue
        if known not in UNTOLD:
            charsets.append(WIDER.get(known, known))
    for charset in [*charsets, "utf-8"]:
        try:
            return content.decode(charset)
        except (UnicodeError, LookupError):  # LookupError: base64 and the like, which are no character sets
            continue
    try:
        return content.decode([*charsets, "cp1252"][0], "replace")
    except LookupError:
        return content.decode("cp1252", "replace")


class Page(HTMLParser):
    """Collects what a reader sees of an HTML page, a line a block."""

    UNSEEN = frozenset({"script", "style", "title"})
    BLOCKS = re.compile("address|blockquote|br|center|d[dlt]|div|form|h[1-6r]|li|ol|p|pre|table|tr|ul")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.unseen = self.pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a block, or what is not seen."""
        del attrs
        self.unseen += tag in self.UNSEEN
        self.pre += tag == "pre"
        self.seen.append("\n" if self.BLOCKS.fullmatch(tag) else " " if tag in ("td", "th") else "")

    def handle_endtag(self, tag: str) -> None:
        """Closes it."""
        self.unseen = max(0, self.unseen - (tag in self.UNSEEN))
        self.pre = max(0, self.pre - (tag == "pre"))
        self.seen.append("\n" if self.BLOCKS.fullmatch(tag) else "")

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if not self.unseen:
            self.seen.append(data if self.pre else re.sub(r"\s+", " ", data))


def page_text(html: str) -> str:
    """HTML as text."""
    page = Page()
    page.feed(re.sub(r"<!\[[^>]*>", "", html))  # <![if ...]>, on which the parser would stop
    page.close()
    lines = [" ".join(line.split()) for line in "".join(page.seen).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
