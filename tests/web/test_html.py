from genwright.web.html import Html, join, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & c", tag("b", ">")) == "<p>a &lt; b &amp; c<b>&gt;</b></p>"


def test_attribute_values_cannot_end_their_quotes() -> None:
    assert tag("i", title='"><script>') == '<i title="&quot;&gt;&lt;script&gt;"></i>'


def test_nothing_is_written_for_none_and_false() -> None:
    assert tag("td", None, False, 0, class_=None, hidden=False) == "<td>0</td>"


def test_void_elements_have_no_end() -> None:
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_names_of_attributes() -> None:
    assert (
        tag("svg", viewBox="0 0 1 1", aria_label="x", class_="c")
        == '<svg viewBox="0 0 1 1" aria-label="x" class="c"></svg>'
    )


def test_join_escapes_what_is_not_html() -> None:
    assert join(["<", Html("<br>")]) == "&lt;<br>"
