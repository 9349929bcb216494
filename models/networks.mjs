/**
 * The networks that generate.mjs can write, exactly as torchvision builds them for 224 x 224 images, as ONNX nodes and the
 * tensors that they read; values are drawn later. Left out is what does nothing there: dropout, and the adaptive average
 * pools of AlexNet and VGG, which at this size are the identity.
 *
 * Ranges keep activations of order 1 from the first layer to the last: weights have variance 2 / fan-in (He et al., 2015),
 * and each residual branch ends in a small scale, so that sixteen sums do not add up.
 */
const SIDE = 224;
const COLOURS = 3;
/** Scale of the last BatchNormalization of a residual branch. */
const BRANCH_SCALE = 0.3;

export const NETWORKS = {
  alexnet,
  vgg16,
  resnet18: (net, classes) => resnet(net, classes, basicBlock, [2, 2, 2, 2]),
  resnet50: (net, classes) => resnet(net, classes, bottleneck, [3, 4, 6, 3]),
};

/**
 * Nodes of a network in their order, and its tensors {name, dims, low, high, trained}: uniform from low to high; running
 * statistics are not trained, and no parameters.
 */
export function buildNetwork(name, classes) {
  const net = new Network();
  NETWORKS[name](net, classes);
  return net;
}

/** A value of the graph is {name, width}: its width is its channels, or its features after Flatten. */
class Network {
  nodes = [];
  tensors = [];
  input = { name: 'image', width: COLOURS, dims: ['N', COLOURS, SIDE, SIDE] };
  /** Set by the last layer. */
  output = undefined;

  conv(name, from, width, { kernel, stride = 1, pad = 0, bias = true }) {
    const reads = [this.#weight(name, [width, from.width, kernel, kernel])];
    if (bias) reads.push(this.#around(`${name}.bias`, width, 0, 0.1));
    return this.#node('Conv', name, [from.name, ...reads], width, window(kernel, stride, pad));
  }

  batchNorm(name, from, scale = 1) {
    const reads = [
      this.#around(`${name}.weight`, from.width, scale, scale / 3),
      this.#around(`${name}.bias`, from.width, 0, 0.1),
      this.#around(`${name}.running_mean`, from.width, 0, 0.1, false),
      // A convolution with He's weights makes variance 2 of values whose mean square is 1.
      this.#around(`${name}.running_var`, from.width, 2, 1, false),
    ];
    return this.#node('BatchNormalization', name, [from.name, ...reads], from.width);
  }

  relu(name, from) {
    return this.#node('Relu', name, [from.name], from.width);
  }

  maxPool(name, from, { kernel, stride, pad = 0 }) {
    return this.#node('MaxPool', name, [from.name], from.width, window(kernel, stride, pad));
  }

  averagePool(name, from) {
    return this.#node('GlobalAveragePool', name, [from.name], from.width);
  }

  add(name, a, b) {
    return this.#node('Add', name, [a.name, b.name], a.width);
  }

  flatten(name, from, positions) {
    return this.#node('Flatten', name, [from.name], from.width * positions, { axis: 1 });
  }

  dense(name, from, width, output = name) {
    const reads = [this.#weight(name, [width, from.width]), this.#around(`${name}.bias`, width, 0, 0.1)];
    return this.#node('Gemm', name, [from.name, ...reads], width, { transB: 1 }, output);
  }

  classify(name, from, classes) {
    this.output = { ...this.dense(name, from, classes, 'logits'), dims: ['N', classes] };
  }

  #node(op, name, inputs, width, attributes = {}, output = name) {
    this.nodes.push({ op, name, inputs, output, attributes });
    return { name: output, width };
  }

  #weight(layer, dims) {
    const fanIn = dims.slice(1).reduce((a, b) => a * b, 1);
    const bound = Math.sqrt(6 / fanIn); // a uniform value within ±bound has variance bound² / 3
    return this.#tensor({ name: `${layer}.weight`, dims, low: -bound, high: bound, trained: true });
  }

  #around(name, width, middle, spread, trained = true) {
    return this.#tensor({ name, dims: [width], low: middle - spread, high: middle + spread, trained });
  }

  #tensor(tensor) {
    this.tensors.push(tensor);
    return tensor.name;
  }
}

function window(kernel, stride, pad) {
  return { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad] };
}

function alexnet(net, classes) {
  const layers = [
    { width: 64, shape: { kernel: 11, stride: 4, pad: 2 }, pooled: true },
    { width: 192, shape: { kernel: 5, pad: 2 }, pooled: true },
    { width: 384, shape: { kernel: 3, pad: 1 }, pooled: false },
    { width: 256, shape: { kernel: 3, pad: 1 }, pooled: false },
    { width: 256, shape: { kernel: 3, pad: 1 }, pooled: true },
  ];
  let x = net.input;
  for (const [index, { width, shape, pooled }] of layers.entries()) {
    const number = index + 1;
    x = net.relu(`relu${number}`, net.conv(`conv${number}`, x, width, shape));
    if (pooled) x = net.maxPool(`pool${number}`, x, { kernel: 3, stride: 2 });
  }
  classifier(net, x, 6 * 6, classes);
}

function vgg16(net, classes) {
  const stages = [
    [64, 64],
    [128, 128],
    [256, 256, 256],
    [512, 512, 512],
    [512, 512, 512],
  ];
  let x = net.input;
  for (const [stage, widths] of stages.entries()) {
    for (const [layer, width] of widths.entries()) {
      const place = `${stage + 1}_${layer + 1}`;
      x = net.relu(`relu${place}`, net.conv(`conv${place}`, x, width, { kernel: 3, pad: 1 }));
    }
    x = net.maxPool(`pool${stage + 1}`, x, { kernel: 2, stride: 2 });
  }
  classifier(net, x, 7 * 7, classes);
}

/** The three dense layers that AlexNet and VGG end in. */
function classifier(net, from, positions, classes) {
  let x = net.flatten('flatten', from, positions);
  for (const number of [6, 7]) x = net.relu(`relu${number}`, net.dense(`fc${number}`, x, 4096));
  net.classify('fc8', x, classes);
}

function resnet(net, classes, block, depths) {
  const stem = net.conv('conv1', net.input, 64, { kernel: 7, stride: 2, pad: 3, bias: false });
  let x = net.relu('relu', net.batchNorm('bn1', stem));
  x = net.maxPool('maxpool', x, { kernel: 3, stride: 2, pad: 1 });
  for (const [stage, depth] of depths.entries()) {
    for (let index = 0; index < depth; index++) {
      const stride = stage > 0 && index === 0 ? 2 : 1;
      x = residual(net, `layer${stage + 1}.${index}`, x, block(64 * 2 ** stage, stride), stride);
    }
  }
  net.classify('fc', net.flatten('flatten', net.averagePool('avgpool', x), 1), classes);
}

function basicBlock(width, stride) {
  return [
    { width, kernel: 3, stride },
    { width, kernel: 3, stride: 1 },
  ];
}

/** torchvision's has the stride in the 3 x 3 convolution, where the paper had it in the first. */
function bottleneck(width, stride) {
  return [
    { width, kernel: 1, stride: 1 },
    { width, kernel: 3, stride },
    { width: 4 * width, kernel: 1, stride: 1 },
  ];
}

function residual(net, name, from, convolutions, stride) {
  let x = from;
  for (const [index, { width, ...shape }] of convolutions.entries()) {
    const [number, last] = [index + 1, index === convolutions.length - 1];
    x = net.conv(`${name}.conv${number}`, x, width, { ...shape, pad: (shape.kernel - 1) / 2, bias: false });
    x = net.batchNorm(`${name}.bn${number}`, x, last ? BRANCH_SCALE : 1);
    if (!last) x = net.relu(`${name}.relu${number}`, x);
  }
  let shortcut = from;
  if (stride !== 1 || from.width !== x.width) {
    shortcut = net.conv(`${name}.downsample.0`, from, x.width, { kernel: 1, stride, bias: false });
    shortcut = net.batchNorm(`${name}.downsample.1`, shortcut);
  }
  return net.relu(`${name}.relu`, net.add(`${name}.add`, x, shortcut));
}
