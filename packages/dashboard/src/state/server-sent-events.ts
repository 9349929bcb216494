/**
 * Server-Sent Events (HTML Living Standard, 9.2.6) from text in pieces. The browser's own EventSource cannot send a token, so connection.ts
 * reads the stream itself.
 */
export interface ServerSentEvent {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

export class EventParser {
  #text = '';
  #id = '';

  /** The events that `text`, which follows what came before, completes. */
  push(text: string): ServerSentEvent[] {
    const blocks = (this.#text + text).replaceAll('\r\n', '\n').split('\n\n');
    this.#text = blocks.pop()!;
    return blocks.flatMap(block => this.#event(block));
  }

  #event(block: string): ServerSentEvent[] {
    let event = 'message';
    const data: string[] = [];
    for (const line of block.split('\n')) {
      const [, field = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
      if (field === 'id') this.#id = value;
      else if (field === 'event') event = value;
      else if (field === 'data') data.push(value);
    }
    return data.length === 0 ? [] : [{ id: this.#id, event, data: data.join('\n') }];
  }
}
