// The activation buffer, codes and vector scales, double-buffered. Words are read in the order in which they came:
// vector by vector, and for each vector position by position.
`default_nettype none
module vsq_pe_activations #(
    parameter int WORDS = 256,
    parameter int CODES_BITS = 64,
    parameter int ASB = 6,
    parameter int ASW = (ASB > 0) ? ASB : 1,
    parameter int WORD_BITS = (WORDS > 1) ? $clog2(WORDS) : 1
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire                   load_valid,
    output logic                  load_ready,
    input  wire                   load_last,
    input  wire  [CODES_BITS-1:0] load_codes,
    input  wire  [ASW-1:0]        load_scale,
    input  wire                   free,
    output logic                  available,
    input  wire                   read,
    input  wire  [WORD_BITS-1:0]  read_word,
    output logic [CODES_BITS-1:0] codes,
    output logic [ASW-1:0]        scale
);
  logic               write;
  logic [WORD_BITS:0] write_address;
  logic               read_bank;
  logic               slice;
  wire                unused_slice = slice;  // a word has one

  assign write = load_valid && load_ready;

  vsq_bank_control #(
      .SLICES(1),
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

  vsq_sram #(
      .WIDTH(CODES_BITS),
      .DEPTH(2 * (1 << WORD_BITS))
  ) u_codes (
      .clk(clk),
      .write(write),
      .write_address(write_address),
      .write_data(load_codes),
      .read(read),
      .read_address({read_bank, read_word}),
      .read_data(codes)
  );

  if (ASB > 0) begin : g_scale
    vsq_sram #(
        .WIDTH(ASB),
        .DEPTH(2 * (1 << WORD_BITS))
    ) u_scales (
        .clk(clk),
        .write(write),
        .write_address(write_address),
        .write_data(load_scale),
        .read(read),
        .read_address({read_bank, read_word}),
        .read_data(scale)
    );
  end else begin : g_no_scale
    wire unused_scale = &{1'b0, load_scale};
    assign scale = '0;
  end
endmodule
`default_nettype wire
