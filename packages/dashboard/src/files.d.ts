/** What vite makes of them: the address of the file, and nothing. */
declare module '*.npy?url' {
  const url: string;
  export default url;
}
declare module '*.css' {}
