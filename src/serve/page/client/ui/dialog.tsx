/**
 * Modal dialogs: the browser keeps the focus inside, and Escape closes them.
 */
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface DialogProps {
  title: string;
  open: Signal<boolean>;
  children: ComponentChildren;
}

/** A small one that a signal opens. */
export function Dialog({ title, open, children }: DialogProps) {
  const dialog = useModal(open.value);
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

/** For the element of a dialog, which is open while `isOpen`. */
export function useModal(isOpen: boolean) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (!isOpen) dialog.current?.close();
    else if (!dialog.current?.open) dialog.current?.showModal();
  }, [isOpen]);
  return dialog;
}
