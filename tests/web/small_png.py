"""Make a picture small: a PNG of the 256 colours that it has most of, which takes a third of the bytes.

Chromium decodes the picture and finds the colours. Any other pixel takes the nearest of them.
"""

import base64
import struct
import zlib

from playwright.async_api import Browser

_FIND_COLOURS = """async (png) => {
  const picture = new Image();
  picture.src = `data:image/png;base64,${png}`;
  await picture.decode();
  const {width, height} = picture;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const vivid = (pixel) => Math.max(...parts(pixel)) - Math.min(...parts(pixel)) > 96;
  const weight = ([pixel, count]) => vivid(pixel) ? 50 * count : count;  // rare colours are signals
  const colours = [...counts].sort((a, b) => weight(b) - weight(a)).slice(0, 256).map(([pixel]) => parts(pixel));
  const nearest = new Map();
  for (const pixel of counts.keys()) {
    const own = parts(pixel);
    const distances = colours.map((colour) => colour.reduce((sum, value, i) => sum + (value - own[i]) ** 2, 0));
    nearest.set(pixel, distances.indexOf(Math.min(...distances)));
  }
  let indices = "";
  for (const pixel of pixels) indices += String.fromCharCode(nearest.get(pixel));
  return {width, height, colours, indices: btoa(indices)};
}"""


async def shrink(browser: Browser, png: bytes) -> bytes:
    """The picture as a PNG with a palette."""
    context = await browser.new_context()
    try:
        opened = await context.new_page()
        found = await opened.evaluate(_FIND_COLOURS, base64.b64encode(png).decode())
    finally:
        await context.close()
    width, height = found["width"], found["height"]
    indices = base64.b64decode(found["indices"])
    rows = b"".join(b"\0" + indices[row * width : (row + 1) * width] for row in range(height))
    palette = bytes(value for colour in found["colours"] for value in colour)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", palette),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
