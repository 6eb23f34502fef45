// Colors of values. Each scale is a straight line in OKLab, a perceptually uniform space, and monotonic in
// lightness, so that the order is visible to color-blind readers.

// 0 is the paper, 1 the accent.
const heat = (share) => `color-mix(in oklab, var(--accent) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;
const cool = (share) => `color-mix(in oklab, var(--second) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;

// Readable text color on a color of a scale: the ink's or the paper's, or, if neither has a
// contrast of 4.5, black or white. Cached by hundredths, for each scale and mode (light or dark).
const inkOn = (share, scale = heat) => {
  if (!inks.has(scale)) inks.set(scale, inkTable(scale));
  return inks.get(scale)[Math.round(100 * Math.min(1, Math.max(0, share)))];
};
const inks = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => inks.clear());

const inkTable = (scale) => {
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  const place = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    probe.style.color = colour;
    place.fillStyle = getComputedStyle(probe).color;
    place.fillRect(0, 0, 1, 1);
    const [red, green, blue] = Array.from(place.getImageData(0, 0, 1, 1).data, (byte) => (byte > 10 ? ((byte / 255 + 0.055) / 1.055) ** 2.4 : byte / 255 / 12.92));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue; // WCAG 2.2
  };
  const inkColours = ["var(--ink)", "var(--paper)", "#000", "#fff"].map((colour) => [colour, luminance(colour)]);
  const table = Array.from({ length: 101 }, (_, hundredth) => {
    const ground = luminance(scale(hundredth / 100));
    const contrast = ([, ink]) => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    return (inkColours.slice(0, 2).find((one) => contrast(one) >= 4.5) || inkColours.slice(2).sort((a, b) => contrast(b) - contrast(a))[0])[0];
  });
  probe.remove();
  return table;
};

const paint = (node, share, scale = heat) => {
  node.style.backgroundColor = scale(share);
  node.style.color = inkOn(share, scale);
};

// Bits of a token's loss to 0 … 1: 12 bits is the cost of one of 4,096 equally likely tokens.
const MOST_BITS = 12;
const surprise = (bits) => Math.min(1, bits / MOST_BITS);
