/**
 * What jobs run with: a model of the server's list, with its own VAE or another one, and
 * perhaps with another model of it that finishes the images.
 */
import type { PreparedPipeline } from "../pipeline.ts";

/** A model of the list. */
export interface CatalogModel {
  /** As requests name it. */
  id: string;
  /** The name of the VAE that a job chose; null for that of the server's settings. */
  vae: string | null;
  /** The id of the model of the list that finishes its images; null for that of the settings. */
  refiner: string | null;
  /** For all ranks. */
  prepared: PreparedPipeline;
}
