"""The frame of the page in a browser: its states, its width, and the contrast of its colors."""

from browser import expect


def test_without_runs_the_page_names_the_command(open_page, start_server, tmp_path):
    server = start_server(tmp_path)
    page = open_page(url=server.url)
    expect(page.locator(".empty")).to_contain_text("tokenloom train")
    page.get_by_role("link", name="Read").click()
    expect(page.locator(".empty")).to_contain_text("No model yet")


def test_a_key_is_taken_from_the_address_or_asked_for(open_page, start_server, page_runs):
    server = start_server(page_runs, api_key="se+cret")
    page = open_page("#key=se%2Bcret", url=server.url)
    expect(page.locator("table.runs")).to_be_visible()
    assert "key" not in page.url
    asked = open_page(url=server.url, strict=False)
    asked.get_by_label("Key").fill("se+cret")
    asked.get_by_role("button", name="Use it").click()
    expect(asked.locator("table.runs")).to_be_visible()


ALL_WORK = "z=S8zJUSjPL8pWSMxLUcjLVyjISawEAA"
VIEWS = {
    "runs": "table.runs",
    f"read?m=story&{ALL_WORK}": ".tokens .token",
    f"read?m=story&vs=story@first&{ALL_WORK}": "[aria-pressed=true]:text('Difference')",
    f"read?m=story&tab=attention&{ALL_WORK}": "canvas.map",
    "next?m=story": ".bars.next li",
    "write?m=story": "textarea[rows='8']",
    "models?m=story": ".facts",
}


def test_nothing_is_wider_than_the_screen(open_page):
    page = open_page("#/runs")
    for hash, shown in VIEWS.items():
        page.evaluate("hash => { location.hash = hash }", f"#/{hash}")
        expect(page.locator(shown).first).to_be_visible()
        expect(page.locator(".skeleton")).to_have_count(0)
        for width in (1440, 1024, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(
                "width => innerWidth === width && document.documentElement.scrollWidth <= width", arg=width
            )


def test_text_has_contrast_on_every_color(open_page):
    page = open_page("#/read")
    expect(page.locator("textarea")).to_be_visible()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function("theme => matchMedia(`(prefers-color-scheme: ${theme})`).matches", arg=theme)
        colors = page.evaluate(CONTRASTS)
        assert len(colors) == 23
        assert {name: ratio for name, ratio in colors.items() if ratio < 4.5} == {}, theme


# The contrast of text on every color of a token, as WCAG 2 defines it.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((byte) => {
      const value = byte / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const names = [...Array(13).keys()].map((level) => `heat-${level}`);
  for (const level of [1, 2, 3, 4, 5]) names.push(`better-${level}`, `worse-${level}`);
  const host = document.body.appendChild(document.createElement("p"));
  const found = {};
  for (const name of names) {
    const token = host.appendChild(document.createElement("span"));
    token.className = `token ${name}`;
    const style = getComputedStyle(token);
    const [a, b] = [luminance(style.color), luminance(style.backgroundColor)].sort((x, y) => y - x);
    found[name] = (a + 0.05) / (b + 0.05);
  }
  host.remove();
  return found;
}"""
