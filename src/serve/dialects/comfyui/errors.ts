/**
 * Errors as ComfyUI's POST /prompt answers them.
 * Source: ComfyUI, execution.py (validate_prompt, validate_inputs) and server.py (post_prompt).
 */
import type { Context } from "hono";

/** What is wrong with a prompt, or with an input of a node. */
export interface ComfyError {
  type: string;
  message: string;
  details: string;
  extra_info: Readonly<Record<string, unknown>>;
}

export interface NodeErrors {
  [nodeId: string]: { errors: ComfyError[]; dependent_outputs: string[]; class_type: string };
}

export class PromptRefused extends Error {
  constructor(
    readonly error: ComfyError,
    readonly nodeErrors: NodeErrors = {},
    readonly status: 400 | 429 = 400,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(error.message);
  }
}

/** The answer of a prompt that was refused. */
export function refusedResponse(refused: PromptRefused, c: Context): Response {
  const { error, nodeErrors, status, headers } = refused;
  return c.json({ error, node_errors: nodeErrors }, status, headers);
}

export function comfyError(
  type: string,
  message: string,
  details = "",
  extra: ComfyError["extra_info"] = {},
): ComfyError {
  return { type, message, details, extra_info: extra };
}

/** The error of a graph that ComfyUI would run and this program cannot. */
export function unsupported(input: string, why: string): ComfyError {
  const message = "Custom validation failed for node";
  return comfyError("custom_validation_failed", message, `${input} - ${why}`, {
    input_name: input,
  });
}
