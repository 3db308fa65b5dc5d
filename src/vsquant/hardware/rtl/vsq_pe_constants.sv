// The post-processing constants of LANES output channels, double-buffered; one channel a beat, E channels a word.
`default_nettype none
module vsq_pe_constants #(
    parameter int LANES = 16,
    parameter int E = 2,
    parameter int WIDTH = 46,
    parameter int WORDS = LANES / E,
    parameter int WORD_BITS = (WORDS > 1) ? $clog2(WORDS) : 1
) (
    input  wire                  clk,
    input  wire                  rst,
    input  wire                  load_valid,
    output logic                 load_ready,
    input  wire                  load_last,
    input  wire  [WIDTH-1:0]     load_data,
    input  wire                  free,
    output logic                 available,
    input  wire                  read,
    input  wire  [WORD_BITS-1:0] read_word,
    output logic [E*WIDTH-1:0]   data
);
  localparam int SLICE_BITS = (E > 1) ? $clog2(E) : 1;

  logic [SLICE_BITS-1:0] slice;
  logic [WORD_BITS:0]    write_address;
  logic                  read_bank;

  vsq_bank_control #(
      .SLICES(E),
      .WORDS(WORDS)
  ) u_banks (
      .clk(clk),
      .rst(rst),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_last(load_last),
      .slice(slice),
      .write_address(write_address),
      .free(free),
      .available(available),
      .read_bank(read_bank)
  );

  for (genvar i = 0; i < E; i++) begin : g_slice
    vsq_sram #(
        .WIDTH(WIDTH),
        .DEPTH(2 * (1 << WORD_BITS))
    ) u_constants (
        .clk(clk),
        .write(load_valid && load_ready && slice == SLICE_BITS'(i)),
        .write_address(write_address),
        .write_data(load_data),
        .read(read),
        .read_address({read_bank, read_word}),
        .read_data(data[i*WIDTH +: WIDTH])
    );
  end
endmodule
`default_nettype wire
