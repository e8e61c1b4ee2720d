/**
 * What jobs run with: a model of the server's list, with its own VAE or another one.
 */
import type { PreparedPipeline } from "../pipeline.ts";

/** A model of the list. */
export interface CatalogModel {
  /** As requests name it. */
  id: string;
  /** The name of the VAE that a job chose; null for that of the server's settings. */
  vae: string | null;
  /** For all ranks. */
  prepared: PreparedPipeline;
}
