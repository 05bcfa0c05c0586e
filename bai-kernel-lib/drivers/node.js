// Query mode of Node.js: one process that lives as long as its kernel and runs cells for the runner.
//
// Two inherited sockets connect it to the runner: control (exec in; hello, begin, done out) and completion.
// A message is a little-endian 32-bit length and JSON. A cell is over when its code has returned and, as for a
// script, nothing is left to wait for in the event loop.
(function (require, controlFd, completionFd) {
  'use strict';
  const vm = require('vm');
  const fs = require('fs');
  const net = require('net');
  const path = require('path');
  const util = require('util');
  const { createRequire } = require('module');

  const FILE = 'bai-driver';
  let cell = null; // {number, strict, code}
  let leftOver = false; // an interrupted cell may have left timers or servers, which later ones do not wait for

  const pause = new Int32Array(new SharedArrayBuffer(4));

  /** Writes at once, not when the event loop runs again: the code of a cell may keep it busy. */
  function writeAll(fd, data) {
    while (data.length > 0) {
      try {
        data = data.subarray(fs.writeSync(fd, data));
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;
        Atomics.wait(pause, 0, 0, 1);
      }
    }
  }

  /** An interrupt may end a cell in the middle of a write, which would leave Node's own stream waiting for ever. */
  function makeInterruptible(stream) {
    stream.write = (chunk, encoding, callback) => {
      if (typeof encoding === 'function') [encoding, callback] = [undefined, encoding];
      writeAll(stream.fd, typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
      if (callback) process.nextTick(callback);
      return true;
    };
  }

  class Channel {
    constructor(fd, receive) {
      this.fd = fd;
      this.socket = new net.Socket({ fd, readable: true, writable: true });
      let buffer = Buffer.alloc(0);
      this.socket.on('data', (part) => {
        buffer = Buffer.concat([buffer, part]);
        while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32LE(0)) {
          const end = 4 + buffer.readUInt32LE(0);
          const message = JSON.parse(buffer.toString('utf8', 4, end));
          buffer = buffer.subarray(end);
          receive(message);
        }
      });
      this.socket.on('close', () => realExit(0));
      this.socket.on('error', () => realExit(0));
    }
    send(message) {
      const data = Buffer.from(JSON.stringify(message));
      const head = Buffer.alloc(4);
      head.writeUInt32LE(data.length, 0);
      writeAll(this.fd, Buffer.concat([head, data]));
    }
  }

  class Exit {
    constructor(code) {
      this.code = code;
    }
  }

  const realExit = process.exit.bind(process);
  process.exit = (code) => {
    throw new Exit(Number(code ?? process.exitCode ?? 0) & 0xff);
  };

  // ---- rewriting source ----------------------------------------------------------------------------------------

  const BEFORE_REGEX = /(^|[(,=:[!&|?{};+\-*%^~<>]|\b(?:return|typeof|case|in|of|void|delete|new|instanceof|do|else))\s*$/;

  /** Calls `word(text, index, previous)` for each word outside of brackets, strings and comments. */
  function scan(source, word) {
    const token = /\/\/[^\n]*|\/\*[^]*?\*\/|'(?:\\[^]|[^'\\])*'|"(?:\\[^]|[^"\\])*"|[A-Za-z_$][\w$]*|[^]/g;
    let depth = 0;
    let previous = '';
    const templates = [];
    const template = () => {
      const rest = /(?:\\[^]|\$(?!\{)|[^\\`$])*(`|\$\{)?/g;
      rest.lastIndex = token.lastIndex;
      const match = rest.exec(source);
      token.lastIndex = rest.lastIndex;
      if (match && match[1] === '${') templates.push(depth++);
    };
    for (let match; (match = token.exec(source)); ) {
      const text = match[0];
      if (text.startsWith('//') || text.startsWith('/*')) continue;
      if (text === '`') template();
      else if (text === '}' && templates.length && templates[templates.length - 1] === depth - 1) {
        depth = templates.pop();
        template();
      } else if ('([{'.includes(text)) depth++;
      else if (')]}'.includes(text)) depth--;
      else if (text === '/' && BEFORE_REGEX.test(previous)) {
        const regex = /(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])*\/\w*/y;
        regex.lastIndex = token.lastIndex;
        if (regex.test(source)) token.lastIndex = regex.lastIndex;
      } else if (depth === 0 && /^[A-Za-z_$]/.test(text)) word(text, match.index, previous);
      previous = (previous + text).slice(-32);
    }
  }

  const STATEMENT_START = /(^|[;}\n])\s*$/;

  /** Replaces declarations at the top level, so that they can be repeated by a later cell. */
  function redeclarable(source, assign) {
    const edits = [];
    scan(source, (text, index, previous) => {
      const rest = source.slice(index + text.length);
      const name = /^\s*\*?\s*([A-Za-z_$][\w$]*)/.exec(rest)?.[1];
      if (text === 'const' || text === 'let' || (assign && text === 'var')) {
        if (assign && name) edits.push([index, text.length, '']);
        else if (name || /^\s*[[{]/.test(rest)) edits.push([index, text.length, 'var']);
      } else if (text === 'class' && name && STATEMENT_START.test(previous)) {
        edits.push([index, 0, `${assign ? '' : 'var '}${name} = `]);
      } else if (assign && text === 'function' && name && STATEMENT_START.test(previous)) {
        edits.push([index, 0, `${name} = `]);
      }
    });
    for (const [index, length, text] of edits.reverse()) {
      source = source.slice(0, index) + text + source.slice(index + length);
    }
    return source;
  }

  function compile(source, filename) {
    const options = { filename };
    const loader = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
    if (loader) options.importModuleDynamically = loader;
    return new vm.Script(source, options);
  }

  function firstThatCompiles(filename, candidates) {
    let first;
    for (const make of candidates) {
      try {
        return make();
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        first ??= error;
      }
    }
    throw first;
  }

  /** The script of a cell, and whether its result is a promise of the value rather than the value. */
  function prepare(source, filename) {
    const plain = () => ({ script: compile(redeclarable(source, false), filename), awaits: false });
    const candidates = [plain];
    if (/^\s*\{/.test(source) && !/;\s*$/.test(source)) {
      candidates.unshift(() => ({ script: compile(`(${source}\n)`, filename), awaits: false }));
    }
    if (/\bawait\b/.test(source)) {
      const wrap = (body) => ({ script: compile(`(async () => ${body})()`, filename), awaits: true });
      candidates.push(() => wrap(`(${source.replace(/;\s*$/, '')}\n)`));
      candidates.push(() => wrap(`{${redeclarable(source, true)}\n}`));
    }
    return firstThatCompiles(filename, candidates);
  }

  // ---- running cells -------------------------------------------------------------------------------------------

  function failed(error) {
    if (error instanceof Exit) {
      finish(error.code);
      return;
    }
    if (error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED') {
      leftOver = true;
      process.stderr.write('Interrupted\n');
    } else process.stderr.write(`${clean(error)}\n`);
    if (cell) cell.code = 1;
  }

  function clean(error) {
    if (!(error instanceof Error) || !error.stack) return `Uncaught ${util.inspect(error)}`;
    const lines = error.stack.split('\n');
    return lines.filter((line) => !line.includes(FILE) && !/^\s+at .*\bnode:/.test(line)).join('\n');
  }

  function show(value) {
    if (value === undefined) return;
    globalThis._ = value;
    process.stdout.write(`${util.inspect(value)}\n`);
  }

  const ACTION = Symbol.for('bai-driver');
  const starter = new vm.Script("globalThis[Symbol.for('bai-driver')]()", { filename: FILE });

  /** Calls `action` so that an interrupt ends it, whatever it does. Node can do this for whole scripts only. */
  function interruptible(action) {
    globalThis[ACTION] = () => {
      delete globalThis[ACTION];
      return action();
    };
    return starter.runInThisContext({ breakOnSigint: true, displayErrors: false });
  }

  function run(message) {
    cell = { number: message.cell, strict: message.strict, code: 0 };
    control.socket.unref();
    let awaits = false;
    try {
      const value = interruptible(() => {
        // Asks for the interrupts that are due. Before, while Node changes from one way of taking them to the other, they
        // would be lost.
        control.send({ op: 'begin', cell: cell.number });
        const prepared = prepare(message.code, `cell-${cell.number}`);
        awaits = prepared.awaits;
        return prepared.script.runInThisContext({ displayErrors: false });
      });
      if (awaits) Promise.resolve(value).then(show).catch(failed).then(settled);
      else show(value);
      if (!awaits) settled();
    } catch (error) {
      failed(error);
      settled();
    }
  }

  /** The code of a cell has returned. Its end is that of the event loop, see `beforeExit` below. */
  function settled() {
    if (!leftOver || !cell) return;
    const active = process.getActiveResourcesInfo ? process.getActiveResourcesInfo() : ['?'];
    leftOver = active.some((name) => name !== 'PipeWrap');
    if (leftOver) finish();
  }

  function finish(code) {
    if (!cell) return;
    const done = cell;
    cell = null;
    control.socket.ref();
    control.send({ op: 'done', cell: done.number, code: done.strict ? (code ?? done.code) : 0 });
  }

  // ---- completion ----------------------------------------------------------------------------------------------

  function propertyNames(value) {
    const names = new Set();
    for (let object = Object(value); object; object = Object.getPrototypeOf(object)) {
      for (const name of Object.getOwnPropertyNames(object)) {
        if (/^[A-Za-z_$][\w$]*$/.test(name)) names.add(name);
      }
    }
    return names;
  }

  function complete(request) {
    const line = request.line || (request.code || '').split('\n').pop();
    const match = /((?:[A-Za-z_$][\w$]*\.)*)([A-Za-z_$][\w$]*)?$/.exec(line);
    const [, head, word = ''] = match;
    let target = globalThis;
    for (const name of head.split('.').slice(0, -1)) target = target[name];
    const names = [...propertyNames(target)].filter((name) => name.startsWith(word));
    return names.sort().slice(0, 1000).map((name) => head + name);
  }

  // ---- main ----------------------------------------------------------------------------------------------------

  const control = new Channel(controlFd, (message) => {
    if (message.op === 'exec') run(message);
  });
  const completion = new Channel(completionFd, (request) => {
    let suggestions = [];
    try {
      suggestions = complete(request);
    } catch {
      // Nothing to suggest below something that does not exist.
    }
    completion.send({ id: request.id, suggestions });
  });
  completion.socket.unref();

  process.on('SIGINT', () => {
    if (!cell) return;
    process.stderr.write('Interrupted\n');
    leftOver = true;
    finish(1);
  });
  process.on('uncaughtException', failed);
  process.on('unhandledRejection', failed);
  process.on('beforeExit', () => finish());

  makeInterruptible(process.stdout);
  makeInterruptible(process.stderr);
  globalThis.require = createRequire(path.join(process.cwd(), '/'));
  control.send({ op: 'hello' });
});
