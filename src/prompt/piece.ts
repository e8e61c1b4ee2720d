/**
 * A piece of a prompt: a text with one weight, as the parsers make them.
 */
export interface Piece {
  text: string;
  weight: number;
}
