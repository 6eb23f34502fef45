// Apply temperature, top-k, top-p and min-p to a distribution, in the order of lm/inference/sampling.py.

const PREDICT_LEAST_TEMPERATURE = 1e-6;
const PREDICT_ENDS = { temperature: [0, 2], topK: [0, 100], topP: [0.01, 1], minP: [0, 1] };
const PREDICT_PLAIN = { temperature: 1, topK: 0, topP: 1, minP: 0 };

// Value of a slider in the URL, clamped to its range.
const predictSetting = (name, given) => {
  const [low, high] = PREDICT_ENDS[name];
  const value = Math.min(high, Math.max(low, Number(given)));
  return given === undefined || Number.isNaN(value) ? PREDICT_PLAIN[name] : value;
};

const predictOrders = new WeakMap();

// Ids by descending probability; ties by ascending id.
const predictOrder = (logits) => {
  let order = predictOrders.get(logits);
  if (!order) {
    order = Uint32Array.from(logits, (_, id) => id).sort((a, b) => logits[b] - logits[a] || a - b);
    predictOrders.set(logits, order);
  }
  return order;
};

// The probability of each id: Float64Array (V,). 0 for excluded ids; temperature 0 leaves only the most likely one.
const predictReshape = (logits, { temperature, topK, topP, minP }) => {
  const order = predictOrder(logits);
  const shares = new Float64Array(logits.length);
  if (!(temperature > 0)) {
    shares[order[0]] = 1;
    return shares;
  }
  const scale = Math.max(temperature, PREDICT_LEAST_TEMPERATURE);
  const scaled = (id) => (logits[id] - logits[order[0]]) / scale;
  const ranked = topK > 0 ? Math.min(topK, order.length) : order.length;
  let total = 0;
  for (let rank = 0; rank < ranked; rank++) total += shares[order[rank]] = Math.exp(scaled(order[rank]));
  const least = Math.log(minP); // -Infinity for 0
  let better = 0;
  let left = 0;
  for (let rank = 0; rank < ranked; rank++) {
    const id = order[rank];
    const weight = shares[id];
    const inTopP = topP >= 1 || better < topP || rank === 0;
    better += weight / total;
    if (inTopP && scaled(id) >= least) left += weight;
    else shares[id] = 0;
  }
  for (let rank = 0; rank < ranked; rank++) shares[order[rank]] /= left;
  return shares;
};

// Entropy in bits.
const predictEntropy = (shares) => {
  let bits = 0;
  for (const share of shares) if (share > 0) bits -= share * Math.log2(share);
  return bits;
};

// Format with enough digits to distinguish small probabilities.
const predictShare = (share) => (share === 0 ? "0 %" : share < 0.001 ? (100 * share).toPrecision(1) + " %" : percent(share));

// Append tokens to a text: return the text up to the last complete character, and the remaining tokens.
const predictPlace = (text, ids, part) => {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let count = ids.length; count > 0; count--) {
    try {
      return { text: text + decoder.decode(tokensArray(ids.slice(0, count).map(part).join(""))), pending: ids.slice(count) };
    } catch {
      // it ends within a character
    }
  }
  return { text, pending: ids };
};
