/** What can be done to a link, by an order and until the next. What its shape (shape.ts) does to each frame goes on beside it. */

/** From who connects to the target, or from the target back. */
export type Direction = 'there' | 'back';

export type LinkMode =
  | { readonly kind: 'forward' }
  /** Nothing passes and nothing breaks; in one direction only it is a one-way partition. Default both. */
  | { readonly kind: 'hole'; readonly direction?: Direction | undefined }
  /** Connections are reset, those that come too. */
  | { readonly kind: 'reset' }
  /**
   * Flips one bit, once a connection: in the length in the next HTTP/2 frame header on the way back, which the receiver must
   * notice; or `inPayload`, in any byte of the next DATA frames, which only a checksum above TCP's can notice: in `direction`, or
   * there or back as the seed has it.
   */
  | {
      readonly kind: 'corrupt';
      readonly seed: number;
      readonly inPayload: boolean;
      readonly direction?: Direction | undefined;
    }
  | { readonly kind: 'drip'; readonly bytes: number; readonly everyMs: number }
  | { readonly kind: 'delay'; readonly ms: number }
  /**
   * Everything is held back for `ms`, then goes on; default in both directions. It comes on top of the mode that the link has, and
   * ends by itself, or with `forward`. A lost frame looks so to who uses TCP, with the retransmission timeout as `ms`.
   */
  | { readonly kind: 'stall'; readonly ms: number; readonly direction?: Direction | undefined };

/** What a link can be in for long: a stall is over by itself. */
export type LastingMode = Exclude<LinkMode, { readonly kind: 'stall' }>;
