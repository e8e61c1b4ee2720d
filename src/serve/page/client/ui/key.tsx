/**
 * The API key, where the server asks for one. It is handed to the server at once and kept in a
 * cookie that scripts cannot read, never in the page.
 */
import { useSignal } from "@preact/signals";
import { call, keyWanted } from "../server/api.ts";
import { Dialog } from "./dialog.tsx";

export function KeyDialog() {
  const key = useSignal("");
  const problem = useSignal<string | null>(null);
  const send = async () => {
    try {
      await call("/login", { method: "POST", json: { key: key.value } });
      key.value = "";
      problem.value = null;
      keyWanted.value = false;
    } catch (error) {
      problem.value = (error as Error).message;
    }
  };
  return (
    <Dialog title="API key" open={keyWanted}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <label for="api-key">This server asks for its key.</label>
        <input
          id="api-key"
          type="password"
          autocomplete="current-password"
          value={key.value}
          onInput={({ currentTarget }) => (key.value = currentTarget.value)}
        />
        {problem.value && (
          <p class="failure" role="alert">
            {problem.value}
          </p>
        )}
        <button type="submit" class="primary">
          Continue
        </button>
      </form>
    </Dialog>
  );
}
