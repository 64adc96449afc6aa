// A heat map as a veil over all that it leaves out.

export const DARKNESS = [12, 9, 6]; // on the screen: where the model looked, light falls
export const PAPER = [255, 255, 255]; // in print: what it left out fades

/** The maps of an answer as {culture, png: base64}, the answered culture's first. Answers kept by an older page have one. */
export function maps({ explanation } = {}) {
  return explanation?.heatmaps ?? (explanation?.heatmap ? [explanation.heatmap] : []);
}

/** Draws `png` (base64: few grey pixels, white where the model looked) as a veil of `colour` on `canvas`. */
export async function veil(canvas, png, colour) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.clearRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  const pixels = brush.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const seen = smooth(smooth(pixels.data[at] / 255));
    pixels.data.set([...colour, 255 * (1 - seen)], at);
  }
  brush.putImageData(pixels, 0, 0);
}

/** Brings out the difference between more and less, and keeps 0 and 1: the smoothstep of graphics. */
function smooth(value) {
  return value * value * (3 - 2 * value);
}
