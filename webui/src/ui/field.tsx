import type { ComponentChildren, JSX } from "preact";
import type { WrongField } from "./words.ts";

/** said is what an exception tells people. */
export function said(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}

/** Field is an input with its label, and beside it what is wrong with it. */
export function Field({ wrong, form = "", children, ...input }: {
  wrong: WrongField | undefined;
  /** Tells fields of one name in several forms of a page apart. */
  form?: string;
  name: string;
  children: ComponentChildren;
} & Omit<JSX.InputHTMLAttributes<HTMLInputElement>, "name" | "form">) {
  const words = wrong?.input === input.name ? wrong.words : "";
  const id = `wrong-${form}-${input.name}`;
  return (
    <div class="field">
      <label>
        {children}
        <input {...input} aria-invalid={words !== ""} aria-describedby={words ? id : undefined} />
      </label>
      {words && (
        <p id={id} class="wrong" role="alert">
          {words}
        </p>
      )}
    </div>
  );
}

/** Refusal is what is wrong with a form as a whole. */
export function Refusal({ children }: { children: ComponentChildren }) {
  return (
    <p class="trouble" role="alert">
      {children}
    </p>
  );
}

/** FormEnd is where the form of a dialog ends: what is wrong with it as a whole, and its buttons. */
export function FormEnd({ error, yes, disabled, cancel }: { error: string; yes: string; disabled?: boolean; cancel(): void }) {
  return (
    <>
      {error && <Refusal>{error}</Refusal>}
      <div class="pair">
        <button type="submit" class="main" disabled={disabled}>
          {yes}
        </button>
        <button type="button" onClick={cancel}>
          Cancel
        </button>
      </div>
    </>
  );
}
