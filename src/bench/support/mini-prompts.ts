/**
 * Prompts of the scenes that the bundled model knows (src/assets/mini-sdxl/README.md), each once:
 * what benches measure images over.
 */
const colours = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan"];
const things = ["house", "tree", "cat", "boat", "flower", "fish", "mushroom", "star", "moon"];
const relations = ["left of", "right of", "above", "below"];
const counts = ["two", "three", "four"];
const places = [
  "on the grass",
  "by the sea",
  "in the desert at sunset",
  "in the snow",
  "in the sky at night",
  "on a white background",
  "on the grass in the rain",
];

/** The first `count` of a fixed order: one thing, two in a relation, several alike, in turn. */
export function miniPrompts(count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const colour = colours[(3 * i) % colours.length];
    const thing = things[(2 * i) % things.length];
    const place = places[i % places.length];
    if (i % 3 === 0) return `a ${colour} ${thing} ${place}`;
    if (i % 3 === 2) return `${counts[i % counts.length]} ${colour} ${plural(thing!)} ${place}`;
    const other = colours[(3 * i + 5) % colours.length];
    const second = things[(2 * i + 3) % things.length];
    return `a ${colour} ${thing} ${relations[i % relations.length]} a ${other} ${second} ${place}`;
  });
}

function plural(thing: string): string {
  return thing === "fish" ? "fishes" : `${thing}s`;
}
