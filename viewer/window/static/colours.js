// Colours of values. Each scale is a straight line in OKLab, whose distances are those that eyes see, and runs in
// lightness: whoever tells no hues apart still sees the order.

// 0 is the paper, 1 the accent.
const heat = (share) => `color-mix(in oklab, var(--accent) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;
const cool = (share) => `color-mix(in oklab, var(--second) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;

// Where the colour is nearer to the accent than this, text on it is written in the paper's colour.
const inkOn = (share) => (share > 0.62 ? "var(--paper)" : "var(--ink)");
const paint = (node, share, scale = heat) => {
  node.style.backgroundColor = scale(share);
  node.style.color = inkOn(share);
};

// Bits of a token's loss to 0 … 1: 12 bits is what a token costs that is one of 4,096 alike.
const MOST_BITS = 12;
const surprise = (bits) => Math.min(1, bits / MOST_BITS);
