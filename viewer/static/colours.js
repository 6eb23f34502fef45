// Colors of values. Each scale is a straight line in OKLab, a perceptually uniform space, and monotonic in
// lightness, so that the order is visible to color-blind readers.

// 0 is the paper, 1 the accent.
const heat = (share) => `color-mix(in oklab, var(--accent) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;
const cool = (share) => `color-mix(in oklab, var(--second) ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, var(--paper))`;

// Strongest background of text: the contrast of the ink on it stays above 4.5, in light and in dark mode.
const UNDER_TEXT = 0.5;
const paint = (node, share, scale = heat) => { node.style.backgroundColor = scale(UNDER_TEXT * share); };

// Bits of a token's loss to 0 … 1: 12 bits is the cost of one of 4,096 equally likely tokens.
const MOST_BITS = 12;
const surprise = (bits) => Math.min(1, bits / MOST_BITS);
