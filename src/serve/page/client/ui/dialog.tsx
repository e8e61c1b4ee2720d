/**
 * A modal dialog that a signal opens. The browser keeps the focus inside, and Escape closes it.
 */
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface DialogProps {
  title: string;
  open: Signal<boolean>;
  children: ComponentChildren;
}

export function Dialog({ title, open, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (!open.value) dialog.current?.close();
    else if (!dialog.current?.open) dialog.current?.showModal();
  }, [open.value]);
  return (
    <dialog ref={dialog} class="small" aria-label={title} onClose={() => (open.value = false)}>
      {open.value && (
        <>
          <h2>{title}</h2>
          {children}
        </>
      )}
    </dialog>
  );
}
